// The OpenCL device of a build without the Khronos headers: it is never there.
#include "cistern/device/opencl.hpp"

namespace cistern {
namespace {

constexpr const char* no_headers = "this build has none: the headers CL/cl.h were not found";

}  // namespace

class OpenClDevice::State {};
class OpenClDevice::Order {};
class OpenClDevice::Migration {};
class OpenClDevice::Copies {};

OpenClObject::~OpenClObject() =
    default;  // NOLINT(performance-trivially-destructible): elsewhere not

OpenClDevice::OpenClDevice(const Options& /*options*/) : Device(DeviceLimits{}) {
  throw DeviceAbsent("opencl", no_headers);
}
OpenClDevice::OpenClDevice(_cl_context* /*context*/, _cl_command_queue* /*queue*/,
                           const Options& options)
    : OpenClDevice(options) {}
OpenClDevice::OpenClDevice(const OpenClApi& /*api*/, const Options& options)
    : OpenClDevice(options) {}
OpenClDevice::OpenClDevice(const OpenClApi& /*api*/, _cl_context* /*context*/,
                           _cl_command_queue* /*queue*/, const Options& options)
    : OpenClDevice(options) {}
OpenClDevice::~OpenClDevice() = default;

_cl_context* OpenClDevice::context_of(_cl_command_queue* /*queue*/) {
  throw DeviceAbsent("opencl", no_headers);
}
_cl_context* OpenClDevice::context() const noexcept {
  return nullptr;
}
_cl_device_id* OpenClDevice::id() const noexcept {
  return nullptr;
}
_cl_command_queue* OpenClDevice::queue() const noexcept {
  return nullptr;
}
Stream OpenClDevice::stream(_cl_command_queue* /*queue*/) {
  return {};
}
bool OpenClDevice::uses_host_pointer() const noexcept {
  return false;
}
PoolRegistry& OpenClDevice::registry() noexcept {
  return Device::registry();
}
std::size_t OpenClDevice::free_memory() const noexcept {
  return 0;
}
StreamOrder* OpenClDevice::stream_order() noexcept {
  return nullptr;
}
Residency* OpenClDevice::residency() noexcept {
  return nullptr;
}
Transfer* OpenClDevice::transfer() noexcept {
  return nullptr;
}
Expected<OpenClObject> OpenClDevice::object(const Block& block) noexcept {
  return tl::unexpected(fail(Errc::unsupported, block.bytes));
}
Expected<Device::Piece> OpenClDevice::obtain(std::size_t bytes, std::size_t /*alignment*/,
                                             Stream /*stream*/) noexcept {
  return tl::unexpected(fail(Errc::unsupported, bytes));
}
void OpenClDevice::give_back(Piece /*piece*/, Stream /*stream*/) noexcept {}
std::string OpenClDevice::validate() const {
  return {};
}

std::vector<OpenClFound> find_opencl_devices(std::string& why_none) {
  why_none = no_headers;
  return {};
}

}  // namespace cistern
