// What the subcommands share with main: how one is added, and how one fails.
#pragma once

#include <functional>
#include <stdexcept>

#include <CLI/CLI.hpp>

namespace cistern::command {

/// What the arguments ask for. It runs after they were read; what it throws decides the exit
/// status.
using Job = std::function<void()>;

/// The job cannot be done: exit status 1.
class JobFailed : public std::runtime_error {
  using runtime_error::runtime_error;
};

/// The arguments make no sense together, beyond what CLI11 sees: exit status 2. So is a stack's
/// wrong text.
class WrongArguments : public std::runtime_error {
  using runtime_error::runtime_error;
};

/// Each adds its subcommand to `app`; parsing it sets `job`.
void add_replay(CLI::App& app, Job& job);
void add_plan(CLI::App& app, Job& job);
void add_import(CLI::App& app, Job& job);
void add_generate(CLI::App& app, Job& job);
void add_info(CLI::App& app, Job& job);
void add_devices(CLI::App& app, Job& job);
void add_stages(CLI::App& app, Job& job);
void add_bench(CLI::App& app, Job& job);

}  // namespace cistern::command
