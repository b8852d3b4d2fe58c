// `cistern bench` as scripts see it, and the peers that it looks for. Nothing here depends on a
// time.
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cistern/bench_isolated.hpp"
#include "cistern/bench_peers.hpp"
#include "cistern/trace/event.hpp"
#include "cistern/trace/write.hpp"
#include "support/environment.hpp"
#include "support/xml.hpp"
#include "tools/command.hpp"

namespace cistern::testing {
namespace {

using command::holds_isolated;
using command::measure_isolated;
using command::open_peer;
using command::PeerLibrary;
using command::Sample;
using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::StartsWith;

/// As little as can be measured: no figure is looked at that depends on it.
const std::string quick = " --rounds 1 --seconds 0.0001";
const std::string two_sizes = " --bytes 256 --bytes 64KiB";

class BenchCommand : public CommandTest {};

TEST_F(BenchCommand, MeasuresOurStacksBesideOthers) {
  using Entry = std::pair<std::string, std::size_t>;
  std::set<Entry> entries;  // of pair
  std::set<std::size_t> sizes;
  const json document =
      run_to_json("bench pair growth --threads 1 --threads 2" + two_sizes + quick);
  for (const json& result : document.at("results")) {
    const std::string subject = result.at("subject");
    const std::size_t threads = result.at("threads");
    const json& reserved = result.at("reserved_over_live");
    EXPECT_GT(result.at("ns_per_op").get<double>(), 0.0);
    EXPECT_EQ(result.contains("bytes"), result.at("workload") == "pair");
    if (result.at("workload") == "pair") {
      entries.emplace(subject, threads);
      sizes.insert(result.at("bytes").get<std::size_t>());
    } else {
      EXPECT_EQ(result.at("workload"), "growth");
      EXPECT_EQ(threads, 1U);
    }
    if (threads > 1) {
      EXPECT_EQ(reserved, nullptr);
    } else if (subject.starts_with("cistern:")) {
      EXPECT_GE(reserved.get<double>(), 1.0) << result;
    } else {
      EXPECT_THAT(subject, StartsWith("peer:"));
      EXPECT_GE(reserved.is_null() ? 1.0 : reserved.get<double>(), 1.0) << result;
    }
  }
  EXPECT_THAT(sizes, ElementsAre(256U, 64U << 10U));
  std::set<Entry> expected{{"peer:pmr_unsynchronized", 1}};  // and on no more than one
  for (const auto& [subject, threads] : entries) {
    if (subject == "peer:pmr_unsynchronized") continue;
    expected.insert({subject, 1});
    expected.insert({subject, 2});
  }
  EXPECT_EQ(entries, expected);
  for (const char* subject : {"cistern:cache", "cistern:coalesce", "cistern:virtual",
                              "cistern:netcl", "cistern:mlx", "peer:glibc"})
    EXPECT_THAT(entries, Contains(Entry(subject, 2)));
}

/// A sanitizer's malloc keeps its blocks otherwise, and writes 32 MiB for one of 256 MiB.
#ifndef CISTERN_SANITIZED
TEST_F(BenchCommand, TellsHowMuchAMallocMaps) {
  const json document = run_to_json("bench pair --threads 1" + quick);
  std::set<std::size_t> sizes;  // unless others are asked for
  for (const json& result : document.at("results")) {
    sizes.insert(result.at("bytes").get<std::size_t>());
    if (result.at("subject") != "peer:glibc") continue;
    const json& reserved = result.at("reserved_over_live");
    if (result.at("bytes") < (1U << 20U)) {
      EXPECT_EQ(reserved, nullptr) << result;
    } else if (result.at("bytes") > (16U << 20U)) {
      EXPECT_GE(reserved.get<double>(), 1.0);
      EXPECT_LT(reserved.get<double>(), 1.1);
    }
  }
  EXPECT_THAT(sizes, ElementsAre(256U, 4U << 10U, 64U << 10U, 256U << 10U, 1U << 20U, 16U << 20U,
                                 256U << 20U));
}
#endif

TEST_F(BenchCommand, PrintsTheBenchmarkInTables) {
  const Outcome outcome = run_command("bench trace " + small_trace() + quick);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.output, StartsWith("trace small.trace"));
  EXPECT_THAT(outcome.output, HasSubstr("peer:glibc"));
}

TEST_F(BenchCommand, MeasuresEveryPeerOrNamesItWithItsPackage) {
  const json document = run_to_json("bench trace " + small_trace() + quick);
  std::set<std::string> measured;
  for (const json& result : document.at("results"))
    measured.insert(result.at("subject"));
  for (const char* subject : {"peer:glibc", "peer:pmr_synchronized", "peer:pmr_unsynchronized"})
    EXPECT_THAT(measured, Contains(subject));
  std::set<std::pair<std::string, std::string>> missing;
  for (const json& peer : document.at("missing_peers"))
    missing.emplace(peer.at("subject").get<std::string>(), peer.at("package").get<std::string>());
  for (const PeerLibrary& peer : command::peer_libraries) {
    const bool is_measured = measured.contains(peer.subject);
    EXPECT_NE(is_measured, missing.contains({peer.subject, peer.package})) << peer.subject;
    if (holds_isolated([&] { return open_peer(peer).has_value(); })) {
      EXPECT_TRUE(is_measured);
    }
  }
}

TEST_F(BenchCommand, LeavesOutAPeerThatCannotBeOpened) {
  std::ofstream(folder_ / "libmimalloc.so.2") << "no library";
  const Environment found_first("LD_LIBRARY_PATH", folder_.c_str());
  const std::string arguments = "bench trace " + small_trace() + quick;
  const json document = run_to_json(arguments);
  for (const json& result : document.at("results"))
    EXPECT_NE(result.at("subject"), "peer:mimalloc");
  EXPECT_THAT(document.at("missing_peers"), Contains(json{{"subject", "peer:mimalloc"},
                                                          {"library", "libmimalloc.so.2"},
                                                          {"package", "libmimalloc2.0"}}));
  EXPECT_THAT(run_command(arguments).output,
              HasSubstr("peer:mimalloc is left out: libmimalloc.so.2 cannot be opened; the package "
                        "libmimalloc2.0 brings it."));
}

TEST_F(BenchCommand, RunsWhatHasAnOwnerOnOneThread) {
  std::set<std::string> subjects;
  const json token = run_to_json("bench token --threads 1" + quick);
  for (const json& result : token.at("results"))
    subjects.insert(result.at("subject"));
  EXPECT_THAT(subjects, Contains("cistern:arena"));
  EXPECT_THAT(subjects, Contains("cistern:planned"));
  const json pair = run_to_json(
      "bench pair --threads 1 --threads 2 --bytes 256 --stack 'planned > host' --stack "
      "'limit(1GiB) > host'" +
      quick);
  std::multiset<std::pair<std::string, std::size_t>> named;
  for (const json& result : pair.at("results")) {
    if (const std::string subject = result.at("subject"); subject.ends_with(" > host"))
      named.emplace(subject, result.at("threads").get<std::size_t>());
  }
  EXPECT_THAT(
      named, ElementsAre(Pair("cistern:limit(1GiB) > host", 1),
                         Pair("cistern:limit(1GiB) > host", 2), Pair("cistern:planned > host", 1)));
}

TEST_F(BenchCommand, LeavesOutMoreThreadsThanThereIsMemoryFor) {
  const Outcome outcome = run_command("bench token_touched --threads 1024" + quick);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.errors, HasSubstr("token_touched on 1024 threads is left out"));
}

TEST_F(BenchCommand, HandsBlocksFromThreadToThread) {
  const json document = run_to_json("bench producer_consumer" + quick);
  std::set<std::string> subjects;
  for (const json& result : document.at("results")) {
    EXPECT_EQ(result.at("threads"), 2);
    EXPECT_GT(result.at("ns_per_op").get<double>(), 0.0);
    EXPECT_EQ(result.at("reserved_over_live"), nullptr);
    subjects.insert(result.at("subject"));
  }
  EXPECT_THAT(subjects, Contains("cistern:cache"));
  EXPECT_THAT(subjects, Contains("peer:glibc"));
  EXPECT_FALSE(subjects.contains("peer:pmr_unsynchronized"));
}

TEST_F(BenchCommand, PlaysATraceOnEverySubject) {
  const std::string stack = "first(simulated(capacity=1MiB), host)";
  const json document =
      run_to_json("bench trace " + small_trace() + quick + " --stack '" + stack + "'");
  std::set<std::string> subjects;
  for (const json& result : document.at("results")) {
    EXPECT_EQ(result.at("workload"), "trace");
    EXPECT_EQ(result.at("trace"), "small.trace");
    EXPECT_FALSE(result.contains("bytes"));
    EXPECT_EQ(result.at("threads"), 1);
    subjects.insert(result.at("subject"));
    if (result.at("subject") == "cistern:" + stack) {  // in granules of 512 bytes
      EXPECT_DOUBLE_EQ(result.at("reserved_over_live").get<double>(), 4608.0 / 4500);
    }
  }
  for (const char* subject :
       {"cistern:cache", "cistern:mlx", "peer:glibc", "peer:pmr_synchronized"})
    EXPECT_THAT(subjects, Contains(subject));
  EXPECT_THAT(subjects, Contains("cistern:" + stack));
}

TEST_F(BenchCommand, PlaysATraceFromAPipeAndNoneWithoutBlocks) {
  const std::string trace = small_trace();
  EXPECT_EQ(run_command("bench trace -" + quick + " <" + trace).status, 0);

  EXPECT_TRUE(write_trace(Trace{}, folder_ / "empty.trace").has_value());
  const Outcome outcome = run_command("bench trace " + file("empty.trace"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.errors, HasSubstr("holds no blocks"));
}

TEST_F(BenchCommand, DrawsAPictureOfEachWorkload) {
  const std::string stack = "limit(1GiB) > host";  // with a character that XML has for itself
  const json document =
      run_to_json("bench pair trace " + small_trace() + " --threads 1 --threads 2 --stack '" +
                  stack + "' --svg " + file("pictures/new") + two_sizes + quick);
  std::set<std::string> subjects;
  std::size_t pair_results = 0;
  for (const json& result : document.at("results")) {
    subjects.insert(result.at("subject"));
    pair_results += result.at("workload") == "pair" ? 1U : 0U;
  }
  const auto picture = [&](const char* name) {
    std::ifstream in(folder_ / "pictures/new" / name);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  };
  const std::string pair = picture("pair.svg");
  const std::string trace = picture("trace-small.trace.svg");
  EXPECT_EQ(broken_xml(pair), "");
  EXPECT_EQ(broken_xml(trace), "");
  EXPECT_THAT(pair, HasSubstr(">pair</text>"));
  EXPECT_THAT(pair, HasSubstr(">time of a pair</text>"));
  EXPECT_THAT(pair, HasSubstr(">bytes of a block, above the number of threads</text>"));
  EXPECT_THAT(trace, HasSubstr(">trace small.trace</text>"));
  EXPECT_THAT(trace, HasSubstr(">time of an operation</text>"));
  EXPECT_THAT(trace, HasSubstr(">number of threads</text>"));
  EXPECT_EQ(count(pair, "<circle"), pair_results);
  EXPECT_EQ(count(trace, "<circle"), subjects.size());
  for (std::string subject : subjects) {  // in the legend
    if (subject == "cistern:" + stack) subject = "cistern:limit(1GiB) &gt; host";
    EXPECT_EQ(count(pair, '>' + subject + "</text>"), 1U) << subject;
    EXPECT_EQ(count(trace, '>' + subject + "</text>"), 1U) << subject;
  }
  EXPECT_EQ(run_command("bench pair --svg /dev/null/none").status, 1);
}

TEST_F(BenchCommand, GoesOnWithoutASubjectThatFails) {
  const Outcome outcome = run_command("bench growth --stack 'limit(1MiB) > host' --json" + quick);
  EXPECT_EQ(outcome.status, 1);
  const json document = json::parse(outcome.output);
  std::set<std::string> measured;
  for (const json& result : document.at("results"))
    measured.insert(result.at("subject"));
  EXPECT_THAT(measured, Contains("cistern:cache"));
  EXPECT_THAT(measured, Contains("peer:glibc"));
  EXPECT_FALSE(measured.contains("cistern:limit(1MiB) > host"));
  const std::vector<std::string> failures = document.at("failures");
  ASSERT_EQ(failures.size(), 1U);
  EXPECT_THAT(failures[0], StartsWith("growth on cistern:limit(1MiB) > host, threads: 1: "));
  EXPECT_THAT(failures[0], HasSubstr("over the limit"));
  EXPECT_THAT(outcome.errors, HasSubstr("cistern: " + failures[0] + "\n"));
  EXPECT_THAT(outcome.errors, HasSubstr("cistern: 1 measurement failed\n"));
}

/// It takes a sanitizer long.
#ifndef CISTERN_SANITIZED
TEST_F(BenchCommand, TouchesNoMemoryThatIsNotTheCpus) {
  const Outcome outcome =
      run_command("bench token_touched --threads 1 --stack simulated --json" + quick);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(json::parse(outcome.output).at("failures"),
              ElementsAre("token_touched on cistern:simulated, threads: 1: the CPU cannot touch "
                          "its memory"));
}
#endif

TEST_F(BenchCommand, RefusesWrongArguments) {
  for (const auto& [wrong, why] : std::vector<std::pair<std::string, std::string>>{
           {"bench nonsense", "nonsense"},
           {"bench trace", "file"},
           {"bench pair trace", "file"},
           {"bench trace " + file("none"), "none"},
           {"bench pair --stack 'host > cache'", "host > cache"},
           {"bench pair --threads 0", "--threads"},
           {"bench pair --threads x", "--threads"},
           {"bench pair --threads -1", "--threads"},
           {"bench pair --bytes 0", "--bytes"},
           {"bench pair --bytes 1zib", "--bytes"},
           {"bench pair --rounds 0", "--rounds"},
           {"bench pair --seconds 0", "--seconds"}}) {
    const Outcome outcome = run_command(wrong);
    EXPECT_EQ(outcome.status, 2) << wrong;
    EXPECT_EQ(outcome.output, "") << wrong;
    EXPECT_THAT(outcome.errors, StartsWith("cistern: ")) << wrong;
    EXPECT_THAT(outcome.errors, HasSubstr(why)) << wrong;
  }
}

TEST(BenchPeers, ThatAreNotThereAreErrors) {
  PeerLibrary peer{"peer:none", "none", "libcistern-none.so.0", "malloc", "free"};
  const auto no_library = open_peer(peer);
  ASSERT_FALSE(no_library.has_value());
  EXPECT_THAT(no_library.error(), HasSubstr("libcistern-none.so.0"));

  peer.library = "libc.so.6";
  EXPECT_TRUE(open_peer(peer).has_value());
  peer.free = "cistern_none";
  const auto no_function = open_peer(peer);
  ASSERT_FALSE(no_function.has_value());
  EXPECT_THAT(no_function.error(), HasSubstr("cistern_none"));
}

TEST(BenchPeers, AreAskedForInAProcessOfTheirOwn) {
  bool is_asked = false;
  EXPECT_TRUE(holds_isolated([&] { return is_asked = true; }));
  EXPECT_FALSE(is_asked);
  EXPECT_FALSE(holds_isolated([] { return false; }));
  EXPECT_FALSE(holds_isolated([]() -> bool { std::_Exit(7); }));
  try {
    EXPECT_FALSE(holds_isolated([]() -> bool { throw std::runtime_error("not answered"); }));
  } catch (const std::runtime_error&) {
    std::_Exit(0);  // it is the child that came here: its answer is seen above
  }
}

/// Why there is no sample; empty if there is one.
std::string why_none(const std::function<Sample()>& measure,
                     std::chrono::milliseconds limit = std::chrono::minutes(1)) {
  try {
    static_cast<void>(measure_isolated(measure, limit));
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(BenchIsolated, GivesTheSampleOfAChild) {
  const pid_t here = getpid();
  const auto measure = [here] {
    return Sample{.ns_per_op = getpid() == here ? 1.0 : 2.0, .reserved_over_live = 3.0};
  };
  const Sample sample = measure_isolated(measure, std::chrono::minutes(1));
  EXPECT_EQ(sample.ns_per_op, 2.0);
  EXPECT_EQ(sample.reserved_over_live, 3.0);
}

TEST(BenchIsolated, SaysWhyThereIsNone) {
  EXPECT_EQ(why_none([]() -> Sample { throw std::runtime_error("no memory"); }), "no memory");
  EXPECT_EQ(why_none([]() -> Sample {
              std::thread([] { command::fail_isolated(std::runtime_error("in a thread")); }).join();
              return {};
            }),
            "in a thread");
  EXPECT_EQ(why_none([]() -> Sample { _exit(7); }), "it ended before its time, with status 7");
  EXPECT_EQ(why_none([]() -> Sample {
              std::raise(SIGKILL);
              return {};
            }),
            "it was ended by signal 9 (Killed)");
}

TEST(BenchIsolated, WaitsForNoneThatHangs) {
  const auto hang = [] {
    while (true)
      pause();
    return Sample{};
  };
  EXPECT_EQ(why_none(hang, std::chrono::milliseconds(100)),
            "it took longer than 0.1 s and was ended");
  EXPECT_FALSE(holds_isolated([&] { return hang().ns_per_op > 0; }, std::chrono::milliseconds(1)));
}

}  // namespace
}  // namespace cistern::testing
