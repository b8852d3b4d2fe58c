#include "stack/table.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "cistern/adaptor/deferred.hpp"
#include "cistern/adaptor/fallback.hpp"
#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/recorder.hpp"
#include "cistern/adaptor/resident.hpp"
#include "cistern/adaptor/retry.hpp"
#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/cuda.hpp"
#include "cistern/device/file.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/opencl.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/arena.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/pool/coalesce.hpp"
#include "cistern/pool/planned.hpp"
#include "cistern/pool/virtual.hpp"
#include "stack/cache_buckets.hpp"
#include "stack/coalesce_classes.hpp"
#include "stack/nested_stack.hpp"

namespace cistern::language {
namespace {

// --- adaptors ---

StageEntry limit() {
  struct Options {
    std::size_t bytes = unbounded;
  };
  return StageOf<Options>(Kind::adaptor, "limit",
                          "a ceiling on the bytes that are asked of what lies below")
      .takes("bytes", &Options::bytes, size_or_percent(),
             "at most so many at any time; a percentage is of the device's memory, 0 refuses all")
      .required()
      .made_by([](const Options& options, Ref<Resource> upstream) {
        return make<Limit>(std::move(upstream), options.bytes);
      });
}

StageEntry retry() {
  using Options = Retry::Options;
  return StageOf<Options>(Kind::adaptor, "retry",
                          "looks for memory and asks again when what lies below is exhausted")
      .takes("attempts", &Options::attempts, number<unsigned>(),
             "what lies below is asked again so often, at most, for one request")
      .takes("window", &Options::window, duration(),
             "no further attempt begins so long after the request first failed")
      .made_by([](const Options& options, Ref<Resource> upstream) {
        return make<Retry>(std::move(upstream), options);
      });
}

StageEntry trace() {
  struct Options {
    std::string file;
  };
  return StageOf<Options>(Kind::adaptor, "trace", "records what passes through it to a trace file")
      .takes("file", &Options::file, text(),
             "created or overwritten when the stack is opened; no other may record into it")
      .required()
      .made_by([](const Options& options, Ref<Resource> upstream) {
        return make<Recorder>(std::move(upstream), std::filesystem::path(options.file));
      });
}

StageEntry resident() {
  struct Options {};
  return StageOf<Options>(Kind::adaptor, "resident",
                          "tells the device to keep memory resident while it is handed out")
      .made_by([](const Options& /*options*/, Ref<Resource> upstream) {
        return make<Resident>(std::move(upstream));
      });
}

// --- pools ---

StageEntry cache() {
  using Options = CacheOptions;
  const auto has = [](Buckets kind) {
    return [kind](const Options& options) { return options.choice.kind == kind; };
  };
  return StageOf<Options>(Kind::pool, "cache",
                          "keeps freed blocks by size and hands them out again")
      .takes("buckets", &Options::choice, bucket_choice(), "which sizes share freed blocks")
      .takes("per_doubling", &Options::per_doubling,
             bounded(number<unsigned>(), buckets_per_doubling()),
             "buckets from one power of two to the next")
      .only_with("buckets=geometric", has(Buckets::geometric))
      .takes("slack", &Options::slack, bounded(real(), at_least(1.0)),
             "a block serves a request if it is smaller than this times the request")
      .only_with("buckets=fit", has(Buckets::fit))
      .takes("slack_bytes", &Options::slack_bytes, size(),
             "and smaller than the request and so many bytes more")
      .only_with("buckets=fit", has(Buckets::fit))
      .takes("max_bytes", &Options::max_bytes, or_none(size_or_percent(), unbounded),
             "idle bytes, at most; a percentage is of the device's memory, 0 keeps nothing")
      .takes("per_bucket", &Options::per_bucket, or_none(number<std::size_t>(), Cache::any_number),
             "idle blocks of one bucket, at most")
      .only_with("buckets other than fit",
                 [](const Options& options) {
                   return options.choice.kind != Buckets::fit ||
                          options.per_bucket == Cache::any_number;
                 })
      .takes("when_full", &Options::when_full,
             one_of<WhenFull>({{"evict", WhenFull::evict}, {"reject", WhenFull::reject}}),
             "what goes back: the blocks idle for longest, or the one being freed")
      .takes("idle_ratio", &Options::idle_ratio, or_none(ratio(), Cache::no_ratio),
             "what is held is at most so much more than the peak of what was live")
      .made_by([](const Options& options, Ref<Resource> upstream) {
        return make<Cache>(std::move(upstream), options.resolved());
      });
}

StageEntry arena() {
  using Options = Arena::Options;
  return StageOf<Options>(Kind::pool, "arena",
                          "takes many blocks of one chunk and all of them back at once; of one "
                          "thread, and the outermost stage but for trace")
      .takes("chunk", &Options::chunk, size(),
             "bytes of the chunk at first; later it is what a cycle needs, and no less than this")
      .takes("warn_cycles", &Options::warn_cycles, number<std::size_t>(),
             "cycles in a row in which ever more is live, until a reset is said to be forgotten")
      .takes("warn_bytes", &Options::warn_bytes, or_none(size_or_percent(), unbounded),
             "live bytes until it is said; 0 for half of the device's memory")
      .made_by([](const Options& options, Ref<Resource> upstream) {
        return make<Arena>(std::move(upstream), options);
      });
}

StageEntry planned() {
  using Options = Planned::Options;
  return StageOf<Options>(Kind::pool, "planned",
                          "learns cycles and serves them from a plan; of one thread, and the "
                          "outermost stage but for trace")
      .takes("steps", &Options::steps, number<std::uint64_t>(),
             "that the planner may take for a cycle")
      .made_by([](const Options& options, Ref<Resource> upstream) {
        return make<Planned>(std::move(upstream), options);
      });
}

StageEntry coalesce() {
  using Options = CoalesceOptions;
  constexpr std::size_t coarsest = std::size_t{1} << 30U;
  const std::vector<std::size_t> none;
  const Bound<std::size_t> step = {"0 or a power of two up to 1GiB", [](const std::size_t& bytes) {
                                     return (bytes & (bytes - 1)) == 0 && bytes <= coarsest;
                                   }};
  return StageOf<Options>(Kind::pool, "coalesce",
                          "splits large regions into blocks and joins what is freed")
      .takes("classes", &Options::bounds, or_none(bounded(sizes(), rising()), none),
             "requests up to each of these bytes, and those above the last, have their own regions")
      .takes("regions", &Options::regions, or_none(sizes(), none),
             "bytes of a region in each class; 0, or not listed, for as much as is requested")
      .takes("regions_for", &Options::regions_for, or_none(sizes(), none),
             "in each class, for requests of less than so many bytes; not listed, half a region")
      .takes("rests", &Options::rests, or_none(sizes(), none),
             "in each class, what is left of a hole is kept as one if it has so many bytes")
      .takes("rest_ratio", &Options::rest_ratio, or_none(ratio(), Coalesce::no_ratio),
             "or if it is so many times the request")
      .takes("granule", &Options::granule, bounded(size(), step),
             "sizes are rounded up to a multiple; 0 for the device's alignment")
      .takes("region_step", &Options::region_step, bounded(size(), step),
             "and those of regions; 0 for the device's granularity")
      .takes(
          "growth", &Options::growth,
          one_of<Growth>({{"fitted", Growth::fitted},
                          {"exact", Growth::exact},
                          {"fixed", Growth::fixed},
                          {"doubling", Growth::doubling}}),
          "a new region: what holds a whole number of such requests within that; that exactly; a "
          "multiple of it; or as much as all there are")
      .takes("place", &Options::place,
             one_of<Placement>({{"packed", Placement::packed},
                                {"best", Placement::best},
                                {"first", Placement::first}}),
             "the smallest hole that is large enough, beside live blocks before idle regions; the "
             "smallest; or the one of the lowest address")
      .takes("streams", &Options::streams,
             one_of<StreamSharing>(
                 {{"shared", StreamSharing::shared}, {"separate", StreamSharing::separate}}),
             "whether a stream may take what another one freed, if it has no hole of its own; or "
             "memory stays its stream's, wherever it is freed")
      .takes("borrow", &Options::borrow, boolean(),
             "a request that the device refuses may be served from another class")
      .takes("idle_ratio", &Options::idle_ratio, or_none(ratio(), Coalesce::no_ratio),
             "idle regions go back before what is held grows beyond so much more than the peak of "
             "what was live")
      .takes("max_idle", &Options::max_idle, or_none(size_or_percent(), unbounded),
             "bytes of idle regions, at most")
      .made_by([](const Options& options, Ref<Resource> upstream) {
        return make<Coalesce>(std::move(upstream), options.resolved());
      });
}

// --- choices of stacks ---

StageEntry fallback() {
  struct Options {
    NestedStack stack;
    NestedStack otherwise;
  };
  return StageOf<Options>(Kind::choice, "fallback",
                          "two stacks, one for what the other cannot take")
      .takes("stack", &Options::stack, stack(), "the first choice")
      .required()
      .takes("otherwise", &Options::otherwise, stack(), "takes what the first cannot")
      .required()
      .made_by([](const Options& options) -> Result<Ref<Resource>> {
        Result<Ref<Resource>> first = options.stack.open();
        if (!first) return first;
        Result<Ref<Resource>> second = options.otherwise.open();
        if (!second) return second;
        return make<Fallback>(std::move(*first), std::move(*second));
      });
}

/// The first of `stacks` whose device is there; one warning says why those before it are not.
Result<Ref<Resource>> first_present(const std::vector<NestedStack>& stacks) {
  std::string reasons;
  for (const NestedStack& stack : stacks) {
    try {
      Result<Ref<Resource>> resource = stack.open();
      if (resource && !reasons.empty()) {
        report("first takes %s: %s", stack.chain.back().syntax.name.c_str(), reasons.c_str());
      }
      return resource;
    } catch (const DeviceAbsent& absent) {
      const std::string_view reason = absent.what();
      if (!reasons.ends_with(reason)) (reasons += reasons.empty() ? "" : "; ") += reason;
    }
  }
  throw DeviceAbsent(reasons);
}

StageEntry first() {
  struct Options {
    std::vector<NestedStack> stacks;
  };
  return StageOf<Options>(Kind::choice, "first", "the first of some stacks whose device is present")
      .takes_rest("stacks", &Options::stacks, stack(),
                  "in order of preference; one warning says why those before it are not there")
      .made_by([](const Options& options) { return first_present(options.stacks); });
}

/// As a function that is called when the stack is first needed.
Deferred::SetUp set_up(const NestedStack& stack) {
  return [stack] {
    Result<Ref<Resource>> resource = stack.open();
    if (!resource) throw std::runtime_error(resource.error().message);
    return std::move(*resource);
  };
}

StageEntry deferred() {
  struct Options {
    NestedStack stack;
    NestedStack otherwise;
  };
  return StageOf<Options>(Kind::choice, "deferred", "a stack that is made at the first request")
      .takes("stack", &Options::stack, stack(), "what is made")
      .required()
      .takes("otherwise", &Options::otherwise, stack(),
             "takes its place if it cannot be made; one warning says why")
      .required()
      .made_by([](const Options& options) {
        return make<Deferred>(set_up(options.stack), set_up(options.otherwise));
      });
}

StageEntry virtual_pool() {
  using Options = Virtual::Options;
  return StageOf<Options>(Kind::pool, "virtual",
                          "maps pages only where something lives; stands directly on a device")
      .takes("page", &Options::page, bounded(size(), power_of_two(1, std::size_t{1} << 30U)),
             "what is mapped and unmapped; which sizes there are is the device's")
      .takes("max_bytes", &Options::max_bytes, or_none(size_or_percent(), unbounded),
             "of the pages that are mapped; a percentage is of the device's memory")
      .takes("idle_ratio", &Options::idle_ratio, ratio(),
             "what is mapped is at most so much more than the peak of what was needed")
      .takes("addresses", &Options::addresses, size(),
             "reserved at a time; 0 for 8 times the device's memory")
      .takes("room", &Options::room, size(),
             "addresses kept free behind a block of a page or more, to grow into")
      .made_by([](const Options& options, Ref<Resource> upstream) {
        return make<Virtual>(std::move(upstream), options);
      });
}

// --- devices ---

StageEntry host() {
  enum class Memory : std::uint8_t { malloc, file };
  struct Options : HostDevice::Options {
    Memory memory = Memory::malloc;
    std::string path;
  };
  const auto is_file = [](const Options& options) { return options.memory == Memory::file; };
  return StageOf<Options>(Kind::device, "host", "the CPU's memory")
      .takes("map_from", &Options::map_from, bounded(size(), at_least(std::size_t{1})),
             "requests of so many bytes are mapped, smaller ones malloc'ed")
      .takes("huge_pages", &Options::huge_pages,
             one_of<HugePages>({{"automatic", HugePages::automatic},
                                {"never", HugePages::never},
                                {"transparent", HugePages::transparent}}),
             "left to the system, refused, or asked for")
      .only_with("memory=malloc", [is_file](const Options& options) { return !is_file(options); })
      .takes("zero", &Options::zero, boolean(), "memory is zeroed when it is obtained")
      .takes(
          "memory", &Options::memory,
          one_of<Memory>({{"malloc", Memory::malloc}, {"file", Memory::file}}),
          "file: what is mapped lies in files, so that it can be larger than the memory there is")
      .takes("path", &Options::path, or_none(text(), std::string()),
             "the folder of the files; none is the system's for temporary files")
      .only_with("memory=file", is_file)
      .made_by([is_file](const Options& options) -> Ref<Resource> {
        if (!is_file(options)) return make<HostDevice>(options);
        return make<FileDevice>(FileDevice::Options{
            .folder = options.path, .map_from = options.map_from, .zero = options.zero});
      });
}

StageEntry cuda() {
  using Options = CudaDevice::Options;
  using Memory = CudaDevice::Memory;
  const Bound<std::size_t> ceiling = {
      "0 or at least 256B", [](const std::size_t& bytes) { return bytes == 0 || bytes >= 256; }};
  return StageOf<Options>(Kind::device, "cuda", "the memory of a CUDA GPU, if there is one")
      .takes("device", &Options::device, number<unsigned>(), "the GPU's number, from 0 on")
      .takes(
          "memory", &Options::memory,
          one_of<Memory>({{"device", Memory::device},
                          {"managed", Memory::managed},
                          {"pinned", Memory::pinned},
                          {"async", Memory::async}}),
          "the GPU's; what moves between it and the host; the host's for transfers; or the GPU's "
          "from a pool of the driver's")
      .takes(
          "ceiling", &Options::ceiling,
          or_word(bounded(size(), ceiling), "automatic", CudaDevice::automatic_ceiling),
          "bytes at any time, at most; 0 for what there is, automatic leaves a tenth of the GPU's "
          "memory and at least 1GiB")
      .takes("staging", &Options::staging, size(),
             "bytes of the host's memory through which uploads pass")
      .made_by([](const Options& options) { return make<CudaDevice>(options); });
}

StageEntry opencl() {
  using Options = OpenClDevice::Options;
  using Memory = OpenClDevice::Memory;
  using HostPointer = OpenClDevice::HostPointer;
  return StageOf<Options>(Kind::device, "opencl", "the memory of an OpenCL device, if there is one")
      .takes("platform", &Options::platform, or_none(text(), std::string()),
             "a part of its name, or its number from 0; none for any")
      .takes("device", &Options::device, or_none(text(), std::string()),
             "the same, of the platform's devices")
      .takes("memory", &Options::memory,
             one_of<Memory>({{"buffer", Memory::buffer},
                             {"auto", Memory::buffer},
                             {"svm", Memory::svm},
                             {"pinned", Memory::pinned}}),
             "objects, shared virtual addresses, or the host's memory for transfers")
      .takes("host_pointer", &Options::host_pointer,
             one_of<HostPointer>({{"automatic", HostPointer::automatic},
                                  {"yes", HostPointer::yes},
                                  {"no", HostPointer::no}}),
             "buffers with CL_MEM_ALLOC_HOST_PTR: where the device shares the host's memory")
      .only_with("memory=buffer",
                 [](const Options& options) { return options.memory == Memory::buffer; })
      .takes("force_backing", &Options::force_backing, boolean(),
             "memory is backed when it is obtained, not when it is first used")
      .takes("staging", &Options::staging, size(),
             "bytes of the host's memory through which uploads pass")
      .made_by([](const Options& options) { return make<OpenClDevice>(options); });
}

StageEntry simulated() {
  using Options = SimulatedDevice::Options;
  constexpr std::size_t coarsest = std::size_t{1} << 30U;
  return StageOf<Options>(Kind::device, "simulated",
                          "addresses without memory behind them, with failures on demand")
      .takes("capacity", &Options::capacity, size(), "what the device has in all")
      .takes("granularity", &Options::granularity, bounded(size(), power_of_two(1, coarsest)),
             "sizes are rounded up to a multiple")
      .takes("alignment", &Options::alignment, bounded(size(), power_of_two(1, coarsest)),
             "of every block")
      .takes("extensible", &Options::extensible, boolean(),
             "blocks can be made larger where they lie")
      .takes("joins_adjacent", &Options::joins_adjacent, boolean(),
             "blocks that touch may be used as one")
      .takes("first_address", &Options::first_address,
             bounded(size(), power_of_two(std::size_t{1} << 20U, std::size_t{1} << 60U)),
             "where its addresses begin: another for each device of one stack")
      .takes("allocate_latency", &Options::allocate_latency, duration(),
             "what an allocation costs, in virtual time")
      .takes("free_latency", &Options::free_latency, duration(),
             "what a free costs, in virtual time")
      .takes("ns_per_byte", &Options::ns_per_byte, real(),
             "what each byte of an allocation costs, in virtual nanoseconds")
      .takes("fail_at", &Options::fail_at, number<std::uint64_t>(),
             "this allocation fails, counted from 1; 0 for none")
      .takes("fail_every", &Options::fail_every, number<std::uint64_t>(),
             "every so many allocations one fails; 0 for none")
      .takes("fail_probability", &Options::fail_probability, bounded(ratio(), probability()),
             "each allocation fails with this probability")
      .takes("seed", &Options::seed, number<std::uint64_t>(), "of the failures by chance")
      .takes("fail_beyond", &Options::fail_beyond, or_none(size(), unbounded),
             "an allocation that takes what is in use beyond this fails")
      .takes("residency_latency", &Options::residency_latency, duration(),
             "what making memory resident costs, and ending that, in virtual time")
      .takes("refuse_residency_at", &Options::refuse_residency_at, number<std::uint64_t>(),
             "this call that makes memory resident is refused, counted from 1; 0 for none")
      .takes("refuse_residency_every", &Options::refuse_residency_every, number<std::uint64_t>(),
             "every so many of them one is refused; 0 for none")
      .takes("queues", &Options::queues, boolean(),
             "streams run beside each other, so that one must wait for what another used")
      .made_by([](const Options& options) { return make<SimulatedDevice>(options); });
}

}  // namespace

const std::vector<StageEntry>& stages() {
  static const std::vector<StageEntry> table = {
      limit(),   retry(),    trace(), resident(), cache(), coalesce(), virtual_pool(), arena(),
      planned(), fallback(), first(), deferred(), host(),  cuda(),     opencl(),       simulated()};
  return table;
}

const StageEntry* find_stage(std::string_view name) {
  const std::vector<StageEntry>& table = stages();
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const StageEntry& each) { return each.doc.name == name; });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace cistern::language
