// What a snapshot says of addresses, and what follows from it where it says nothing.
#include "cistern/trace/recorded_layout.hpp"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "trace/samples.hpp"
#include "trace/snapshots.hpp"

namespace cistern {
namespace {

using namespace literals;
using samples::block;
using samples::event;
using samples::Pickle;
using samples::snapshot;
using samples::whole_segment;
using ::testing::HasSubstr;
using Segment = RecordedLayout::Segment;
using Change = RecordedLayout::Change;
using Place = RecordedLayout::Place;

constexpr std::uint64_t first_segment = 1_GiB;
constexpr std::uint64_t usual_segment = 20_MiB;

Recording read_layout(const std::string& bytes) {
  auto recording = read_recording_from_memory(bytes, "sample");
  EXPECT_TRUE(recording) << recording.error().text();
  return recording.value_or(Recording{});
}

std::string layout_error(const std::string& bytes) {
  const auto recording = read_recording_from_memory(bytes, "sample");
  return recording ? "" : recording.error().text();
}

std::string layout_error(const std::vector<std::string>& segments,
                         const std::vector<std::string>& events) {
  return layout_error(snapshot(segments, {events}));
}

TEST(RecordedLayout, StandsBesideTheTraceThatIsReadWithoutIt) {
  const std::string bytes =
      snapshot({whole_segment(first_segment, 2_MiB, "small",
                              {block(first_segment, 512, 100, "active_allocated")}, 7)},
               {{event("segment_alloc", first_segment, 2_MiB, 1, 7),
                 event("alloc", first_segment, 100, 1, 7)}});
  const Recording recording = read_layout(bytes);
  samples::expect_same(recording.trace, *samples::read(bytes));
  EXPECT_EQ(recording.trace.name, "sample");
  EXPECT_TRUE(recording.layout.segments.empty());
  EXPECT_EQ(recording.layout.addresses, (std::vector<std::uint64_t>{first_segment}));
  EXPECT_EQ(recording.layout.changes,
            (std::vector<Change>{{0, Change::Kind::obtained, {first_segment, 2_MiB, 1, true}}}));
}

TEST(RecordedLayout, UndoesWhatCameAndWent) {
  const Recording recording = read_layout(snapshot(
      {whole_segment(first_segment, 20_MiB, "large", {})},
      {{event("segment_free", first_segment + 64_MiB, 2_MiB, 1),
        event("segment_free", first_segment, 30_MiB, 1),
        event("segment_alloc", first_segment, 20_MiB, 2), event("alloc", first_segment, 3_MiB, 2),
        event("free_completed", first_segment, 3_MiB, 3)}}));
  EXPECT_EQ(recording.layout.segments,
            (std::vector<Segment>{{first_segment, 30_MiB, 0, false},
                                  {first_segment + 64_MiB, 2_MiB, 0, true}}));
  ASSERT_EQ(recording.layout.changes.size(), 3U);
  EXPECT_EQ(recording.layout.changes[1],
            (Change{0, Change::Kind::given_back, {first_segment, 30_MiB, 0, false}}));
}

/// What a block of 3 MiB, live before the first event, is found to have been granted.
std::uint64_t granted(std::vector<std::string> events, std::uint64_t segment = usual_segment) {
  events.push_back(event("free_completed", first_segment, 3_MiB, 9));
  const Recording recording =
      read_layout(snapshot({whole_segment(first_segment, segment, "large", {})}, {events}));
  EXPECT_EQ(recording.layout.initial_blocks.size(), 1U);
  return recording.layout.initial_blocks.empty() ? 0 : recording.layout.initial_blocks[0].granted;
}

TEST(RecordedLayout, ATailShowsWhereAHoleBegins) {
  EXPECT_EQ(granted({}), 3_MiB);
  EXPECT_EQ(granted({event("alloc", first_segment + 3_MiB + 1_KiB, 5_MiB, 1)}), 3_MiB + 1_KiB);
  EXPECT_EQ(granted({event("alloc", first_segment + 4_MiB, 5_MiB, 1)}), 4_MiB);
  // Too far away to be the end of this block, or not beside it.
  EXPECT_EQ(granted({event("alloc", first_segment + 5_MiB, 5_MiB, 1)}), 3_MiB);
  EXPECT_EQ(granted({event("alloc", first_segment + 5_MiB, 5_MiB, 1),
                     event("alloc", first_segment + 6_MiB, 1, 2)}),
            3_MiB);
  // Later evidence counts no more than the first.
  EXPECT_EQ(granted({event("alloc", first_segment + 3_MiB, 2_MiB, 1),
                     event("free_completed", first_segment + 3_MiB, 2_MiB, 2),
                     event("alloc", first_segment + 4_MiB, 5_MiB, 1)}),
            3_MiB);
}

TEST(RecordedLayout, ARestThatIsNotSplitOffIsATail) {
  EXPECT_EQ(granted({}, 3_MiB + 512), 3_MiB + 512);
  EXPECT_EQ(granted({}, 4_MiB), 4_MiB);
  EXPECT_EQ(granted({}, 4_MiB + 512), 3_MiB);
}

TEST(RecordedLayout, ABlockOfASmallSegmentHasNoTail) {
  const Recording recording =
      read_layout(snapshot({whole_segment(first_segment, 2_MiB, "small", {})},
                           {{event("free_completed", first_segment, 2_MiB - 600, 1)}}));
  EXPECT_EQ(recording.layout.initial_blocks, (std::vector<Place>{{first_segment, 2_MiB - 512}}));
}

TEST(RecordedLayout, ABlockThatLivesToTheEndTellsItsSize) {
  const Recording recording = read_layout(
      snapshot({whole_segment(first_segment, 20_MiB, "large",
                              {block(first_segment, 3_MiB + 4_KiB, 3_MiB, "active_allocated")})},
               {{event("alloc", first_segment + 3_MiB + 4_KiB, 2_MiB, 1),
                 event("free_completed", first_segment + 3_MiB + 4_KiB, 2_MiB, 2)}}));
  EXPECT_EQ(recording.layout.initial_blocks, (std::vector<Place>{{first_segment, 3_MiB + 4_KiB}}));
}

TEST(RecordedLayout, RefusesSegmentsThatContradictTheEvents) {
  const std::string segment = whole_segment(first_segment, 2_MiB, "small", {});
  EXPECT_THAT(layout_error({segment}, {event("segment_alloc", first_segment, 4_MiB, 1)}),
              HasSubstr("sample: the segment of 4194304 bytes at 0x40000000 is obtained, but by "
                        "what follows it is not there"));
  EXPECT_THAT(layout_error({segment}, {event("segment_free", first_segment + 1_MiB, 4_MiB, 1)}),
              HasSubstr("overlaps the segment of 2097152 bytes at 0x40000000"));
  EXPECT_THAT(layout_error({segment}, {event("segment_free", first_segment - 1_MiB, 4_MiB, 1)}),
              HasSubstr("overlaps"));
  EXPECT_THAT(layout_error({segment, segment}, {}), HasSubstr("overlaps"));
  EXPECT_THAT(layout_error({whole_segment(~0ULL, 2_MiB, "small", {})}, {}),
              HasSubstr("beyond 2^62"));
  EXPECT_THAT(layout_error({whole_segment(first_segment, ~0ULL, "small", {})}, {}),
              HasSubstr("beyond 2^62"));
  EXPECT_THAT(layout_error({whole_segment(first_segment, 0, "small", {})}, {}),
              HasSubstr("is empty"));
  EXPECT_THAT(layout_error({whole_segment(first_segment, 2_MiB, "medium", {})}, {}),
              HasSubstr("a segment's type is \"medium\"; small or large is expected"));
}

TEST(RecordedLayout, RefusesInitialBlocksThatDoNotFit) {
  const std::string segment = whole_segment(first_segment, 2_MiB, "small", {});
  EXPECT_THAT(layout_error({segment}, {event("free_completed", first_segment - 512, 512, 1)}),
              HasSubstr("the block at 0x3ffffe00, live before the first event, is in no segment"));
  EXPECT_THAT(layout_error({segment}, {event("free_completed", first_segment + 2_MiB, 512, 1)}),
              HasSubstr("is in no segment"));
  EXPECT_THAT(layout_error({segment}, {event("free_completed", first_segment, ~0ULL, 1)}),
              HasSubstr("has room for 2097152"));
  EXPECT_THAT(layout_error({segment}, {event("free_completed", first_segment, 513, 1),
                                       event("free_completed", first_segment + 512, 512, 1)}),
              HasSubstr("the block of 513 bytes at 0x40000000, live before the first event, has "
                        "room for 512"));
  EXPECT_THAT(layout_error({whole_segment(first_segment, 2_MiB, "small",
                                          {block(first_segment, 4_MiB, 512, "active_allocated")})},
                           {}),
              HasSubstr("the block at 0x40000000 has 4194304 bytes in the end and had room for "
                        "2097152"));
}

TEST(RecordedLayout, RefusesExpandableSegments) {
  const std::string expandable = "has expandable segments, whose addresses cannot be followed";
  EXPECT_THAT(layout_error({}, {event("segment_map", first_segment, 2_MiB, 1)}),
              HasSubstr(expandable));
  EXPECT_THAT(layout_error({}, {event("segment_unmap", first_segment, 2_MiB, 1)}),
              HasSubstr(expandable));
  std::string segment = whole_segment(first_segment, 2_MiB, "small", {});
  const std::string flag = Pickle::text("is_expandable");
  segment.replace(segment.find(flag) + flag.size(), 1, "\x88");
  EXPECT_THAT(layout_error({segment}, {}), HasSubstr(expandable));
}

TEST(RecordedLayout, IsNotInOtherFormats) {
  EXPECT_EQ(layout_error(samples::encoded(samples::small_trace())),
            "sample: is no PyTorch snapshot (a pickle), the one format that states addresses");
  EXPECT_EQ(layout_error(""), "sample: is empty");
}

}  // namespace
}  // namespace cistern
