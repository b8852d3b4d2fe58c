// A policy that is PyTorch's, begun in the recorded state and given the recorded segments, must put
// every block where PyTorch put it: that holds the importer, the inference of the state, the device
// that follows and the replay to account at once.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/trace/recorded_layout.hpp"
#include "cistern/trace/replay.hpp"
#include "support/pytorch_model.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"
#include "trace/infer_layout.hpp"

namespace cistern {
namespace {

using ::testing::HasSubstr;
using namespace literals;
using testing::PytorchModel;
using testing::Random;
using testing::Spy;

Stack model() {
  return Stack(make<PytorchModel>(make<SimulatedDevice>(
                   SimulatedDevice::Options{.capacity = std::size_t{80} << 30})),
               "model");
}

Stack recipe() {
  return open("pytorch > simulated(80GiB)");
}

/// What the model does, which the recipe must do too.
FollowedAddresses follow(const Recording& recording) {
  const ReplayResult result =
      replay(recording.trace, model, {.check = true, .follow = &recording.layout});
  const ReplayResult other =
      replay(recording.trace, recipe, {.check = true, .follow = &recording.layout});
  EXPECT_EQ(other.error, "");
  EXPECT_TRUE(other.addresses == result.addresses) << "the recipe differs from the model";
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.failed, 0U);
  return result.addresses.value_or(FollowedAddresses{});
}

struct FollowedFile {
  const char* file;
  std::uint64_t allocations;
};

class FollowedSnapshot : public ::testing::TestWithParam<FollowedFile> {
 protected:
  void SetUp() override {
    const auto path = std::filesystem::path(CISTERN_SOURCE_DIR "/../shared/traces/pytorch") /
                      (std::string(GetParam().file) + ".pickle.gz");
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "no recorded traces at " << path;
    auto read = read_recording(path);
    ASSERT_TRUE(read) << read.error().text();
    recording_ = std::move(*read);
  }

  Recording recording_;
};

TEST_P(FollowedSnapshot, HasEveryBlockWhereItWasRecorded) {
  const FollowedAddresses found = follow(recording_);
  EXPECT_EQ(found.matches, GetParam().allocations);
  EXPECT_EQ(found.mismatches, 0U);
  EXPECT_EQ(found.segments_missed, 0U);
}

/// A run of the model from nothing, and what a snapshot would state of it if the events before some
/// `cut` had been lost.
class CutRun {
 public:
  explicit CutRun(const Trace& trace) : trace_(trace) {
    const auto spy = make<Spy>(
        make<SimulatedDevice>(SimulatedDevice::Options{.capacity = std::size_t{80} << 30}));
    const auto pool = make<PytorchModel>(spy);
    std::map<std::uint64_t, Block> live;
    for (std::size_t index = 0; index < trace.events.size(); ++index) {
      const Event& event = trace.events[index];
      if (event.operation == Operation::allocate) {
        live[event.id] =
            *pool->try_allocate({.bytes = event.bytes, .stream = {nullptr, event.stream}});
        if (spy->granted.size() > segments_.size()) {
          const Block& segment = spy->granted.back();
          segments_.push_back(
              {index,
               RecordedLayout::Change::Kind::obtained,
               {address_of(segment), segment.bytes, event.stream, segment.bytes == 2_MiB}});
        }
        blocks_[event.id] = live[event.id];
      } else {
        pool->deallocate(live[event.id]);
        live.erase(event.id);
      }
    }
    for (const auto& [id, block] : live) {
      final_.push_back({id, block.bytes});
      pool->deallocate(block);
    }
  }

  Recording after(std::size_t cut) const {
    Recording recording;
    detail::StatedLayout stated;
    std::map<std::uint64_t, Event> live;
    for (std::size_t index = 0; index < cut; ++index) {
      const Event& event = trace_.events[index];
      if (event.operation == Operation::allocate) {
        live[event.id] = event;
      } else {
        live.erase(event.id);
      }
    }
    for (const auto& [id, event] : live) {
      recording.trace.initial_blocks.push_back({id, event.bytes, 0, event.stream});
      stated.initial_addresses.push_back(address_of(blocks_.at(id)));
    }
    for (std::size_t index = cut; index < trace_.events.size(); ++index) {
      recording.trace.events.push_back(trace_.events[index]);
      stated.addresses.push_back(address_of(blocks_.at(trace_.events[index].id)));
    }
    for (RecordedLayout::Change change : segments_) {
      stated.final_segments.push_back(change.segment);
      if (change.event < cut) continue;
      change.event -= cut;
      stated.changes.push_back(change);
    }
    stated.final_grants = final_;
    auto layout = detail::infer_layout(recording.trace, std::move(stated));
    EXPECT_TRUE(layout) << layout.error().text();
    recording.layout = layout.value_or(RecordedLayout{});
    return recording;
  }

  [[nodiscard]] std::size_t granted(std::uint64_t id) const { return blocks_.at(id).bytes; }

 private:
  static std::uint64_t address_of(const Block& block) {
    return reinterpret_cast<std::uintptr_t>(block.memory);
  }

  const Trace& trace_;
  std::vector<RecordedLayout::Change> segments_;
  std::map<std::uint64_t, Block> blocks_;
  std::vector<detail::StatedLayout::FinalGrant> final_;
};

class SnapshotFromNothing : public FollowedSnapshot {};

// Wherever the ring of events begins, the state there can be told from what follows.
TEST_P(SnapshotFromNothing, IsFollowedAlsoWhereTheStartIsLost) {
  const CutRun run(recording_.trace);
  const std::size_t events = recording_.trace.events.size();
  for (std::size_t cut = 0; cut < events; cut += 1 + events / 10) {
    const Recording rest = run.after(cut);
    const FollowedAddresses found = follow(rest);
    EXPECT_EQ(found.mismatches, 0U) << "from event " << cut;
    EXPECT_EQ(found.segments_missed, 0U) << "from event " << cut;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Follow, FollowedSnapshot,
    ::testing::Values(FollowedFile{"niu_forward_and_backward_memory_snapshot_100", 3853},
                      FollowedFile{"niu_forward_and_backward_memory_snapshot_150", 3907},
                      FollowedFile{"niu_forward_memory_snapshot_100", 785},
                      FollowedFile{"silmont_fwd_bf16_128", 937}, FollowedFile{"silmont_mem", 36},
                      FollowedFile{"wedson_medium_128_inference", 1280},
                      FollowedFile{"wedson_medium_128_training", 6526},
                      FollowedFile{"wedson_medium_256_training", 6624}),
    [](const auto& each) { return each.param.file; });

INSTANTIATE_TEST_SUITE_P(
    Follow, SnapshotFromNothing,
    ::testing::Values(FollowedFile{"niu_forward_and_backward_memory_snapshot_100", 3853},
                      FollowedFile{"niu_forward_and_backward_memory_snapshot_150", 3907},
                      FollowedFile{"niu_forward_memory_snapshot_100", 785},
                      FollowedFile{"silmont_mem", 36}),
    [](const auto& each) { return each.param.file; });

Trace random_run(Random& random, std::size_t events, std::uint64_t streams) {
  Trace trace;
  std::vector<Event> live;
  for (std::uint64_t index = 0; index < events; ++index) {
    Event event{.sequence = index, .id = index, .bytes = random.size(25)};
    event.stream = random.below(streams);
    if (!live.empty() && random.chance(48)) {
      std::swap(live[random.below(live.size())], live.back());
      event = live.back();
      event.sequence = index;
      event.operation = Operation::free;
      live.pop_back();
    } else {
      live.push_back(event);
    }
    trace.events.push_back(event);
  }
  return trace;
}

// Where nothing tells how long a tail is, the guess may be wrong, but what is known is right and
// the state is always one that a pool can be brought into.
TEST(Follow, InfersAStateThatCanBeFromAnyRun) {
  const std::uint64_t seed = testing::seed_or(3);
  SCOPED_TRACE(testing::replay_hint(seed));
  Random random(seed);
  for (int round = 0; round < 20; ++round) {
    const Trace trace = random_run(random, 400, 1 + random.below(3));
    const CutRun run(trace);
    const Recording rest = run.after(random.below(400));
    const FollowedAddresses found = follow(rest);
    EXPECT_LE(found.mismatches, 20U);
    const auto& blocks = rest.trace.initial_blocks;
    for (std::size_t index = 0; index < blocks.size(); ++index) {
      const std::size_t granted = run.granted(blocks[index].id);
      const std::uint64_t inferred = rest.layout.initial_blocks[index].granted;
      EXPECT_LE(inferred, granted) << "a tail that was guessed is too long";
      if (blocks[index].bytes <= 1_MiB) {
        EXPECT_EQ(inferred, granted);
      }
    }
  }
}

/// A recording of `trace` in which all begins with nothing.
Recording from_nothing(Trace trace, std::vector<std::uint64_t> addresses,
                       std::vector<RecordedLayout::Change> changes) {
  Recording recording{.trace = std::move(trace), .layout = {}};
  recording.layout.addresses = std::move(addresses);
  recording.layout.changes = std::move(changes);
  return recording;
}

Event allocation(std::uint64_t id, std::uint64_t bytes) {
  return {.sequence = id, .id = id, .bytes = bytes};
}
Event its_free(std::uint64_t sequence, const Event& event) {
  Event copy = event;
  copy.sequence = sequence;
  copy.operation = Operation::free;
  return copy;
}

constexpr auto obtained = RecordedLayout::Change::Kind::obtained;
constexpr auto given_back = RecordedLayout::Change::Kind::given_back;

TEST(Follow, GivesBackWhatTheRecordingGaveBack) {
  const Event a = allocation(1, 30_MiB);
  const Event b = allocation(3, 20_MiB);
  const Event c = allocation(5, 30_MiB);
  // The segment of `a` goes back, that of `b` does not; `c` gets a new one at another address.
  Trace trace;
  trace.events = {a, b, its_free(10, a), its_free(11, b), c};
  trace.events.back().sequence = 12;
  const Recording recording = from_nothing(trace, {1_GiB, 2_GiB, 1_GiB, 2_GiB, 3_GiB},
                                           {{0, obtained, {1_GiB, 30_MiB, 0, false}},
                                            {1, obtained, {2_GiB, 20_MiB, 0, false}},
                                            {4, given_back, {1_GiB, 30_MiB, 0, false}},
                                            {4, obtained, {3_GiB, 30_MiB, 0, false}}});
  const FollowedAddresses found = follow(recording);
  EXPECT_EQ(found.matches, 3U);
  EXPECT_EQ(found.mismatches, 0U);
  EXPECT_EQ(found.segments_followed, 3U);
  EXPECT_EQ(found.segments_missed, 0U);
}

TEST(Follow, ComparesAnyStackThatBeginsWithNothing) {
  const Event a = allocation(1, 2_MiB);
  const Event b = allocation(2, 1_MiB);
  Trace trace;
  trace.events = {a, its_free(3, a), b};
  trace.events.back().sequence = 4;
  const Recording recording = from_nothing(trace, {1_GiB, 1_GiB, 1_GiB},
                                           {{0, obtained, {1_GiB, 2_MiB, 0, false}},
                                            {2, given_back, {1_GiB, 2_MiB, 0, false}},
                                            {2, obtained, {1_GiB, 20_MiB, 0, false}}});
  const auto run = [&](const char* stack) {
    return *replay(recording.trace, [&] { return open(stack); }, {.follow = &recording.layout})
                .addresses;
  };
  const FollowedAddresses found = run("cache(buckets=pow2) > simulated");
  EXPECT_EQ(found.matches, 1U);
  EXPECT_EQ(found.mismatches, 1U);  // 1 MiB is not asked for as 20 MiB
  EXPECT_EQ(found.segments_followed, 1U);
  EXPECT_EQ(found.segments_missed, 1U);
  const FollowedAddresses refused = run("limit(0) > simulated");
  EXPECT_EQ(refused.matches, 0U);
  EXPECT_EQ(refused.mismatches, 2U);
}

TEST(Follow, SaysWhyItCannot) {
  Trace trace;
  trace.initial_blocks = {{.id = 1, .bytes = 512}};
  Recording recording{.trace = trace, .layout = {}};
  recording.layout.segments = {{1_GiB, 2_MiB, 0, true}};
  recording.layout.initial_blocks = {{1_GiB, 512}};
  const auto error = [&](const std::function<Stack()>& opener) -> std::string {
    try {
      (void)replay(recording.trace, opener, {.follow = &recording.layout});
    } catch (const CannotFollow& cannot) {
      return cannot.what();
    }
    return "";
  };
  EXPECT_THAT(error([] { return open("cache > host"); }), HasSubstr("on a simulated device alone"));
  EXPECT_THAT(error([] { return open("cache > simulated"); }),
              HasSubstr("1 segments were there before the first event"));
  EXPECT_THAT(
      error([] {
        return Stack(
            make<PytorchModel>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB})),
            "model");
      }),
      HasSubstr("cannot be brought into the recorded state: simulated refused"));
  EXPECT_EQ(error(model), "");
}

TEST(Follow, RefusesALayoutThatIsNotOfTheTrace) {
  Recording recording;
  recording.trace.events = {allocation(1, 512)};
  EXPECT_THROW((void)replay(recording.trace, model, {.follow = &recording.layout}),
               std::invalid_argument);
  recording.layout.addresses = {1_GiB};
  EXPECT_THROW((void)replay(recording.trace, model, {.follow = &recording.layout, .turns = 2}),
               std::invalid_argument);
  EXPECT_THROW((void)replay(recording.trace, model, {.turns = 0}), std::invalid_argument);
  EXPECT_EQ(follow(recording).mismatches, 1U);
  recording.trace.events[0].operation = Operation::reset;
  EXPECT_THROW((void)replay(recording.trace, model, {.follow = &recording.layout}),
               std::invalid_argument);
}

}  // namespace
}  // namespace cistern
