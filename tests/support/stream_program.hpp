// A program on several streams, drawn from a seed, that keeps every rule it has to: work on one
// stream feeds work on others, copies run ahead of their use, side streams fork and join, blocks
// come in batches and grow, streams come and go. It waits for what it uses itself, and says or
// waits for where a block was used before it frees it. Whatever disorder is found while it runs is
// the pool's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/resource.hpp"
#include "cistern/device/simulated_queues.hpp"
#include "support/seed.hpp"

namespace cistern::testing {

struct StreamProgramOptions {
  std::size_t streams = 4;     // beside the default one
  bool out_of_order = true;    // one of them is
  bool retires = true;         // streams are retired, and others take their place
  bool outlives = true;        // blocks outlive the streams they were requested for
  bool resets = false;         // turns end with a reset, in which blocks are live
  std::size_t most_live = 24;  // blocks
  unsigned largest_bits = 20;  // of a block's size
  std::uint64_t run_seed = 1;  // of what runs when
};

/// `Queues` are those of a simulated device, or of whatever can be asked for the same.
template <class Queues>
class StreamProgram {
 public:
  using Options = StreamProgramOptions;

  StreamProgram(Resource& resource, Queues& queues, const Options& options)
      : resource_(resource), queues_(queues), options_(options), runs_(options.run_seed) {
    streams_.push_back({});
    for (std::size_t i = 0; i < options.streams; ++i)
      streams_.push_back(queues.make_stream(options.out_of_order && i == 0));
  }

  /// A turn of so many steps, which is the same each time for one seed, as long as no stream was
  /// retired; nothing is live after it.
  void turn(std::uint64_t seed, std::size_t steps) {
    Random random(seed);
    for (std::size_t i = 0; i < steps; ++i) {
      step(random);
      for (std::uint64_t run = runs_.below(4); run > 0; --run)
        queues_.step(runs_.below(1U << 20U));
    }
    end_turn(random);
  }

 private:
  struct Tensor {
    Block block;
    Stream home;                // that it was requested for
    Stream writer;              // of the last write
    std::vector<Stream> users;  // since then, and the writer
    std::vector<Stream> told;   // streams that the pool was told of
    bool is_fresh = true;       // nothing has used it
    bool is_held = false;       // a reset leaves it alone
  };
  using Tensors = std::vector<Tensor>;

  void step(Random& random) {
    const std::uint64_t choice = random.below(100);
    const Stream stream = any(streams_, random);
    most_ = options_.most_live;
    if (choice < 30) {
      compute(random, stream);
    } else if (choice < 45) {
      prefetch(random, stream);
    } else if (choice < 55) {
      fork_and_join(random, stream);
    } else if (choice < 62) {
      if (!tensors_.empty()) work(stream, {}, {random.below(tensors_.size())});
    } else if (choice < 66) {
      batch(random);
    } else if (choice < 70) {
      if (!tensors_.empty()) grow(random, tensors_[random.below(tensors_.size())]);
    } else if (choice < 97) {
      if (!tensors_.empty()) free(random, random.below(tensors_.size()));
    } else if (choice == 97) {
      EXPECT_TRUE(queues_.synchronize(stream));
    } else if (options_.retires && stream.id != 0) {
      retire(random, stream);
    }
    while (tensors_.size() > most_)
      free(random, random.below(tensors_.size()));
  }

  /// A stage of a pipeline: what others have made goes in, a new block comes out.
  void compute(Random& random, Stream stream) {
    std::vector<std::size_t> in;
    for (std::uint64_t i = random.below(3); i > 0 && !tensors_.empty(); --i)
      in.push_back(random.below(tensors_.size()));
    if (!allocate(random, stream)) return;
    work(stream, in, {tensors_.size() - 1});
    for (const std::size_t each : in) {
      if (random.chance(30)) tell(tensors_[each], stream);
    }
    if (!in.empty() && random.chance(50)) free(random, in[0]);
  }

  /// A copy on a stream of its own, used on another, and freed there or by the copying stream while
  /// it is in use.
  void prefetch(Random& random, Stream user) {
    const Stream copies = streams_.back();
    if (!allocate(random, copies)) return;
    const std::size_t index = tensors_.size() - 1;
    work(copies, {}, {index});
    work(user, {index}, {});
    if (random.chance(60)) free(random, index);
  }

  /// Work on the side, of which the stream waits for the end: its blocks are freed where they were
  /// made, or by who waited.
  void fork_and_join(Random& random, Stream stream) {
    const Stream side = any(streams_, random);
    if (!allocate(random, stream)) return;
    const std::size_t shared = tensors_.size() - 1;
    work(stream, {}, {shared});
    if (allocate(random, side)) {
      work(side, {shared}, {tensors_.size() - 1});
      if (random.chance(70)) free(random, tensors_.size() - 1);
    }
    queues_.wait_as_program(stream, side);
    if (random.chance(70)) free_on(random, shared, stream);
  }

  bool allocate(Random& random, Stream stream) {
    const Request request{
        .bytes = random.size(options_.largest_bits), .alignment = 0, .stream = stream};
    const bool is_held = random.chance(10);
    const Expected<Block> block =
        is_held ? resource_.try_allocate_held(request) : resource_.try_allocate(request);
    if (block) {
      add(*block, stream, is_held);
    } else {
      most_ = tensors_.size() / 2;
    }
    return block.has_value();
  }

  void add(const Block& block, Stream stream, bool is_held) {
    tensors_.push_back({.block = block,
                        .home = stream,
                        .writer = stream,
                        .users = {stream},
                        .told = {},
                        .is_fresh = true,
                        .is_held = is_held});
  }

  /// Several blocks at once, of several streams, each then written on its own.
  void batch(Random& random) {
    std::vector<Request> requests(1 + random.below(5));
    for (Request& request : requests)
      request = {.bytes = random.size(options_.largest_bits),
                 .alignment = 0,
                 .stream = any(streams_, random)};
    std::vector<Block> blocks(requests.size());
    if (!resource_.try_allocate_batch(requests, blocks)) {
      most_ = tensors_.size() / 2;
      return;
    }
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      add(blocks[i], requests[i].stream, false);
      work(requests[i].stream, {}, {tensors_.size() - 1});
    }
  }

  /// What is added to a block is ready for the stream that the block was requested for.
  void grow(Random& random, Tensor& tensor) {
    if (!is_there(tensor.home)) return;
    for (const Stream user : tensor.users)
      wait_for(tensor.home, user, tensor);
    const Expected<Block> grown =
        resource_.try_grow(tensor.block, tensor.block.bytes + random.size(options_.largest_bits));
    if (!grown) return;
    tensor.block = *grown;
    tensor.writer = tensor.home;
    tensor.users = {tensor.home};
  }

  void work(Stream stream, const std::vector<std::size_t>& in,
            const std::vector<std::size_t>& out) {
    using Access = SimulatedQueues::Access;
    std::vector<SimulatedQueues::Use> uses;
    for (const std::size_t each : in) {
      Tensor& tensor = tensors_[each];
      wait_for(stream, tensor.writer, tensor);
      note(tensor.users, stream);
      uses.push_back({.block = tensor.block, .access = Access::read});
    }
    for (const std::size_t each : out) {
      Tensor& tensor = tensors_[each];
      for (const Stream user : tensor.users)
        wait_for(stream, user, tensor);
      uses.push_back({.block = tensor.block, .access = Access::write});
    }
    queues_.launch(stream, uses);
    for (const std::size_t each : in)
      tensors_[each].is_fresh = false;
    for (const std::size_t each : out) {
      Tensor& tensor = tensors_[each];
      tensor.writer = stream;
      tensor.users = {stream};
      tensor.is_fresh = false;
    }
  }

  void wait_for(Stream stream, Stream user, const Tensor& tensor) {
    if (tensor.is_fresh && user.id == stream.id) return;  // the pool has seen to it
    if (StreamOrder::needs_wait(user, stream)) queues_.wait_as_program(stream, user);
  }

  void tell(Tensor& tensor, Stream stream) {
    EXPECT_TRUE(resource_.also_used_on(tensor.block, stream));
    note(tensor.told, stream);
  }

  void free(Random& random, std::size_t index) {
    const Tensor& tensor = tensors_[index];
    Stream stream = tensor.home;
    if (random.chance(50)) stream = any(random.chance(50) ? tensor.users : streams_, random);
    free_on(random, index, is_there(stream) ? stream : streams_.front());
  }

  void free_on(Random& random, std::size_t index, Stream stream) {
    make_known(random, tensors_[index], stream);
    EXPECT_TRUE(resource_.deallocate(tensors_[index].block, stream));
    tensors_[index] = tensors_.back();
    tensors_.pop_back();
  }

  /// What is freed on `stream` then comes after all uses.
  void make_known(Random& random, Tensor& tensor, Stream stream) {
    for (const Stream user : tensor.users) {
      if (user.id == stream.id || !is_there(user) || contains(tensor.told, user)) continue;
      if (user.id != tensor.home.id && random.chance(60)) {
        tell(tensor, user);
      } else {
        queues_.wait_as_program(stream, user);
      }
    }
  }

  void retire(Random& random, Stream stream) {
    for (std::size_t i = tensors_.size(); i-- > 0;) {
      const bool is_freed = !options_.outlives || random.chance(50);
      if (tensors_[i].home.id == stream.id && is_freed) free(random, i);
    }
    queues_.retire(stream);
    const auto found = std::ranges::find(streams_, stream);
    *found = queues_.make_stream(stream.runs_out_of_order());
  }

  void end_turn(Random& random) {
    if (options_.resets) {
      for (std::size_t i = tensors_.size(); i-- > 0;) {
        if (tensors_[i].is_held) free(random, i);
      }
      for (Tensor& tensor : tensors_)
        make_known(random, tensor, tensor.home);
      EXPECT_EQ(resource_.reset(), tensors_.size());
      tensors_.clear();
    } else {
      while (!tensors_.empty())
        free(random, random.below(tensors_.size()));
      resource_.cycle();
    }
  }

  template <class T>
  static const T& any(const std::vector<T>& all, Random& random) {
    return all[random.below(all.size())];
  }
  static bool contains(const std::vector<Stream>& streams, Stream stream) {
    return std::ranges::find(streams, stream) != streams.end();
  }
  static void note(std::vector<Stream>& streams, Stream stream) {
    if (!contains(streams, stream)) streams.push_back(stream);
  }
  [[nodiscard]] bool is_there(Stream stream) const { return contains(streams_, stream); }

  Resource& resource_;
  Queues& queues_;
  const Options options_;
  Random runs_;
  std::vector<Stream> streams_;
  Tensors tensors_;
  std::size_t most_ = 0;  // live blocks after this step: fewer where a request failed
};

}  // namespace cistern::testing
