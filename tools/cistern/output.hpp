// How the command writes figures, the same in every subcommand.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

namespace cistern::command {

/// Keys stand in the order in which they were added.
using Json = nlohmann::ordered_json;

/// Writes one document to standard output. Text that is not UTF-8 (a file's name) is mended.
void print_json(const Json& document);

/// 1234567 as "1,234,567".
std::string with_commas(std::uint64_t number);

/// "1 block", "1,234 blocks".
std::string counted(std::uint64_t number, const char* noun);

/// Of bytes, with four digits or so: "512 B", "64.00 KiB", "651.1 MiB".
std::string in_units(std::uint64_t bytes);

/// Of nanoseconds: "3.4 ns", "52 ns", "12.3 us".
std::string as_time(double ns);

/// 0.962 as "96.2%".
std::string as_percent(double part);

}  // namespace cistern::command
