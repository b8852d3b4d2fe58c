// The command `cistern`. Results go to standard output, everything else to standard error.
//
// Exit status: 0 done, 1 the job failed, 2 the arguments are wrong.
#include <cstdio>
#include <exception>
#include <iostream>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "cistern/stack/stack.hpp"
#include "cistern/version.hpp"
#include "command.hpp"

namespace cistern::command {
namespace {

enum Status : int { done = 0, failed = 1, wrong_arguments = 2 };

Status complain(Status status, const char* what) {
  fmt::print(stderr, "cistern: {}\n", what);
  return status;
}

/// What is wrong where no subcommand was understood.
std::optional<std::string> no_subcommand(const CLI::App& app, int count, char** words) {
  if (!app.get_subcommands().empty()) return std::nullopt;
  std::string there_are;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    there_are += (there_are.empty() ? "" : ", ") + command->get_name();
  }
  return count < 2 ? fmt::format("a subcommand is required: {}", there_are)
                   : fmt::format("there is no subcommand '{}' (there are {})", words[1], there_are);
}

Status parse(int count, char** words, Job& job) {
  CLI::App app("Memory pools for devices: replays and plans allocation traces and compares stacks.",
               "cistern");
  app.set_version_flag("--version", "cistern " CISTERN_VERSION_STRING);
  app.require_subcommand(1);
  app.footer("`cistern SUBCOMMAND --help` shows an example of each.");
  for (const auto add : {add_replay, add_plan, add_info, add_import, add_generate, add_bench,
                         add_stages, add_devices}) {
    add(app, job);
  }
  try {
    app.parse(count, words);
  } catch (const CLI::Success& help) {
    app.exit(help);
  } catch (const CLI::RequiredError& error) {
    return complain(wrong_arguments,
                    no_subcommand(app, count, words).value_or(error.what()).c_str());
  } catch (const CLI::ParseError& error) {
    return complain(wrong_arguments, error.what());
  }
  return done;
}

Status run_job(const Job& job) {
  try {
    if (job) job();
  } catch (const StackError& error) {
    return complain(wrong_arguments, error.what());
  } catch (const WrongArguments& error) {
    return complain(wrong_arguments, error.what());
  } catch (const std::exception& error) {
    return complain(failed, error.what());
  }
  // What is buffered may still meet a full disk.
  std::cout.flush();
  const bool is_written = std::cout.good() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  return is_written ? done : complain(failed, "cannot write to standard output");
}

}  // namespace
}  // namespace cistern::command

int main(int count, char** words) {
  using namespace cistern::command;
  Job job;
  const Status status = parse(count, words, job);
  return status == done ? run_job(job) : status;
}
