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

enum class Kind : std::uint8_t { adaptor, pool, device };

/// One stage of the table. `check` reads the arguments without making anything. `build` makes the
/// stage, above `upstream` unless it is a device; it also throws what the stage's constructor
/// throws.
struct StageEntry {
  Kind kind;
  StageDoc doc;
  std::function<Result<void>(const StageSyntax&)> check;
  std::function<Result<Ref<Resource>>(const StageSyntax&, Ref<Resource> upstream)> build;
};

/// The argument given to each of the stage's parameters, in their order, or null; a problem where
/// an argument names no parameter, is one too many or repeats another.
Result<std::vector<const Argument*>> match(const StageSyntax& stage, const StageDoc& doc);

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
    parameters_.push_back({});
    parameters_.back().read = [field, read = std::move(type.read)](
                                  const Value& value, const Context& context,
                                  Options& options) -> Result<void> {
      Result<T> result = read(value, context);
      if (!result) return problem_of(result);
      std::invoke(field, options) = std::move(*result);
      return {};
    };
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
    static constexpr const char* kinds[] = {"adaptor", "pool", "device"};
    doc_.kind = kinds[static_cast<std::size_t>(kind_)];
    auto read = [doc = doc_, parameters = std::move(parameters_)](const StageSyntax& stage,
                                                                  const Context& context) {
      return read_options(stage, context, doc, parameters);
    };
    return {.kind = kind_,
            .doc = std::move(doc_),
            .check = [read](const StageSyntax& stage) -> Result<void> {
              return read(stage, Context{}).map([](const Options&) {});
            },
            .build = [read, make](const StageSyntax& stage,
                                  Ref<Resource> upstream) -> Result<Ref<Resource>> {
              const Context context{.device = upstream ? &upstream->device() : nullptr};
              Result<Options> options = read(stage, context);
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
    bool required = false;
    std::string when;
    std::function<bool(const Options&)> applies;
  };

  static Result<Options> read_options(const StageSyntax& stage, const Context& context,
                                      const StageDoc& doc,
                                      const std::vector<Parameter>& parameters) {
    Result<std::vector<const Argument*>> given = match(stage, doc);
    if (!given) return problem_of(given);
    Options options{};
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Argument* argument = (*given)[i];
      if (argument == nullptr) {
        if (parameters[i].required) return tl::unexpected(missing(stage, doc.parameters[i]));
        continue;
      }
      Result<void> read = parameters[i].read(argument->value, context, options);
      if (!read) {
        read.error().message.insert(0, doc.parameters[i].name + ": ");
        return problem_of(read);
      }
    }
    // Only now, since what a parameter depends on may be written behind it.
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Argument* argument = (*given)[i];
      if (argument != nullptr && parameters[i].applies && !parameters[i].applies(options)) {
        return problem(argument->span(),
                       doc.parameters[i].name + " applies only with " + parameters[i].when);
      }
    }
    return options;
  }

  Kind kind_;
  StageDoc doc_;
  std::vector<Parameter> parameters_;
};

}  // namespace cistern::language
