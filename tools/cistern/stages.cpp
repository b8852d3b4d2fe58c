// `cistern stages`: what a stack can be made of.
#include "cistern/stack/stages.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "command.hpp"
#include "output.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace cistern::command {
namespace {

struct StagesArguments {
  std::string name;
  bool json = false;
};

Json as_json(const StageDoc& stage) {
  Json json{{"name", stage.name},
            {"kind", stage.kind},
            {"text", stage.text},
            {"parameters", Json::array()}};
  for (const ParameterDoc& parameter : stage.parameters) {
    json["parameters"].push_back({{"name", parameter.name},
                                  {"type", parameter.type},
                                  {"default", parameter.default_value},
                                  {"bounds", parameter.bounds},
                                  {"text", parameter.text}});
  }
  json["expansion"] = nullptr;
  if (!stage.expansion.empty()) json["expansion"] = stage.expansion;
  return json;
}

void print_lines(const std::string& text, std::size_t indentation) {
  for (const std::string& line : wrapped(text, columns() - indentation)) {
    fmt::print("{:{}}{}\n", "", indentation, line);
  }
}

void print(const StageDoc& stage) {
  fmt::print("{} ({})\n", stage.name, stage.kind);
  print_lines(stage.text, 2);
  if (!stage.expansion.empty()) print_lines("stands for " + stage.expansion, 2);
  for (const ParameterDoc& parameter : stage.parameters) {
    const bool is_required = parameter.default_value == "required";
    std::string head = fmt::format("{}: {}", parameter.name, parameter.type);
    if (!parameter.bounds.empty()) head += ", " + parameter.bounds;
    head += is_required ? "; required" : "; default " + parameter.default_value;
    print_lines(head, 4);
    print_lines(parameter.text, 8);
  }
  fmt::print("\n");
}

/// All of them, or the one that was named.
std::vector<StageDoc> asked_for(const std::string& name) {
  std::vector<StageDoc> stages = stage_docs();
  if (name.empty()) return stages;
  const auto found = std::ranges::find(stages, name, &StageDoc::name);
  if (found != stages.end()) return {*found};
  std::string names;
  for (const StageDoc& stage : stages)
    names += (names.empty() ? "" : ", ") + stage.name;
  throw WrongArguments(fmt::format("there is no stage \"{}\"; there are {}", name, names));
}

void run_stages(const StagesArguments& arguments) {
  const std::vector<StageDoc> stages = asked_for(arguments.name);
  if (arguments.json) {
    Json document{{"stages", Json::array()}};
    for (const StageDoc& stage : stages)
      document["stages"].push_back(as_json(stage));
    return print_json(document);
  }
  for (const StageDoc& stage : stages)
    print(stage);
}

}  // namespace

void add_stages(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<StagesArguments>();
  CLI::App* command = app.add_subcommand(
      "stages", "List what stacks are made of: stages, their arguments, recipes");
  command->add_option("NAME", arguments->name, "Only this stage");
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->footer("Example:\n  cistern stages cache");
  command->callback([&job, arguments] { job = [arguments] { run_stages(*arguments); }; });
}

}  // namespace cistern::command
