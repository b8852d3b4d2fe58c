// How a stage is declared to the language. `StageOf` gathers a stage's parameters, each tied to a
// field of the options that the stage is constructed from, whose initial value is the default; the
// entry that results no longer depends on the type of the options.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cistern/core/ref.hpp"
#include "cistern/stack/stages.hpp"
#include "stack/value_type.hpp"

namespace cistern::language {

enum class Kind : std::uint8_t {
  adaptor,
  pool,
  choice,  // of the stacks among its arguments
  device,
};

/// One stage of the table. `check` reads the arguments without making anything. `build` makes the
/// stage, above `upstream` where it has one; it also throws what the stage's constructor throws.
struct StageEntry {
  Kind kind;
  StageDoc doc;
  std::function<Result<void>(const StageSyntax&, const Bindings&)> check;
  std::function<Result<Ref<Resource>>(const StageSyntax&, Ref<Resource> upstream, const Bindings&)>
      build;

  /// Nothing stands below it.
  [[nodiscard]] bool ends_stack() const { return kind == Kind::choice || kind == Kind::device; }
};

/// The arguments given to each of some parameters, in their order.
using Matched = std::vector<std::vector<const Argument*>>;

/// At most one argument a parameter, but for the last where it `takes_rest`; a problem where an
/// argument names no parameter, is one too many or repeats another.
Result<Matched> match(const StageSyntax& stage, const StageDoc& doc, bool takes_rest = false);

Problem missing(const StageSyntax& stage, const ParameterDoc& parameter);

template <class Options>
class StageOf {
 public:
  StageOf(Kind kind, std::string name, std::string text) : kind_(kind) {
    doc_.name = std::move(name);
    doc_.text = std::move(text);
  }

  /// A parameter that sets `field`, a member of the options or a function that finds one.
  /// Positional arguments fill the parameters in the order of these calls.
  template <class Field, class T>
  StageOf& takes(const std::string& name, Field field, Type<T> type, const std::string& text) {
    Options defaults{};
    doc_.parameters.push_back({.name = name,
                               .type = type.name,
                               .default_value = type.write(std::invoke(field, defaults)),
                               .bounds = type.bounds,
                               .text = text});
    add_parameter(type, [field](Options& options, T&& value) {
      std::invoke(field, options) = std::move(value);
    });
    return *this;
  }

  /// The last of the parameters: all arguments that are left, at least one. The field is a vector.
  template <class Field, class T>
  StageOf& takes_rest(const std::string& name, Field field, Type<T> type, const std::string& text) {
    doc_.parameters.push_back({.name = name,
                               .type = type.name + ", ...",
                               .default_value = "required",
                               .bounds = type.bounds,
                               .text = text});
    add_parameter(type, [field](Options& options, T&& value) {
      std::invoke(field, options).push_back(std::move(value));
    });
    parameters_.back().required = true;
    takes_rest_ = true;
    return *this;
  }

  /// The last parameter has no default.
  StageOf& required() {
    doc_.parameters.back().default_value = "required";
    parameters_.back().required = true;
    return *this;
  }

  /// The last parameter has a meaning only where `holds`; `when` says so, as it would be written.
  StageOf& only_with(const std::string& when, std::function<bool(const Options&)> holds) {
    doc_.parameters.back().text += " (only with " + when + ")";
    parameters_.back().when = when;
    parameters_.back().applies = std::move(holds);
    return *this;
  }

  /// Ends the declaration. `make` is called with the options, and above a device also with the
  /// upstream.
  template <class Make>
  StageEntry made_by(Make make) {
    static constexpr const char* kinds[] = {"adaptor", "pool", "choice", "device"};
    doc_.kind = kinds[static_cast<std::size_t>(kind_)];
    auto read = [doc = doc_, parameters = std::move(parameters_), takes_rest = takes_rest_](
                    const StageSyntax& stage, const Context& context) {
      return read_options(stage, context, doc, parameters, takes_rest);
    };
    return {.kind = kind_,
            .doc = std::move(doc_),
            .check = [read](const StageSyntax& stage, const Bindings& bindings) -> Result<void> {
              return read(stage, Context{.below = nullptr, .bindings = &bindings})
                  .map([](const Options&) {});
            },
            .build = [read, make](const StageSyntax& stage, Ref<Resource> upstream,
                                  const Bindings& bindings) -> Result<Ref<Resource>> {
              Result<Options> options =
                  read(stage, Context{.below = upstream.get(), .bindings = &bindings});
              if (!options) return problem_of(options);
              if constexpr (std::is_invocable_v<Make, const Options&>) {
                return make(*options);
              } else {
                return make(*options, std::move(upstream));
              }
            }};
  }

 private:
  struct Parameter {
    std::function<Result<void>(const Value&, const Context&, Options&)> read;
    bool problems_name_it = true;
    bool required = false;
    std::string when;
    std::function<bool(const Options&)> applies;
  };

  /// `store` puts a value that was read where it belongs.
  template <class T, class Store>
  void add_parameter(const Type<T>& type, Store store) {
    parameters_.push_back({});
    parameters_.back().problems_name_it = type.problems_name_parameter;
    parameters_.back().read = [store, read = type.read](const Value& value, const Context& context,
                                                        Options& options) -> Result<void> {
      Result<T> result = read(value, context);
      if (!result) return problem_of(result);
      store(options, std::move(*result));
      return {};
    };
  }

  static Result<Options> read_options(const StageSyntax& stage, const Context& context,
                                      const StageDoc& doc, const std::vector<Parameter>& parameters,
                                      bool takes_rest) {
    Result<Matched> given = match(stage, doc, takes_rest);
    if (!given) return problem_of(given);
    Options options{};
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if ((*given)[i].empty() && parameters[i].required)
        return tl::unexpected(missing(stage, doc.parameters[i]));
      for (const Argument* argument : (*given)[i]) {
        Result<void> read = parameters[i].read(argument->value, context, options);
        if (read) continue;
        if (parameters[i].problems_name_it)
          read.error().message.insert(0, doc.parameters[i].name + ": ");
        return problem_of(read);
      }
    }
    // Only now, since what a parameter depends on may be written behind it.
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if ((*given)[i].empty() || !parameters[i].applies || parameters[i].applies(options)) continue;
      return problem((*given)[i].front()->span(),
                     doc.parameters[i].name + " applies only with " + parameters[i].when);
    }
    return options;
  }

  Kind kind_;
  StageDoc doc_;
  std::vector<Parameter> parameters_;
  bool takes_rest_ = false;
};

}  // namespace cistern::language
