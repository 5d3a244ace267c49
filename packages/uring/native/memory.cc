// Memory and files mapped into JavaScript as external ArrayBuffers.
//
// A mapping must be given back by hand (unmap): one that waits for garbage collection keeps the
// file below it open, and DEL_DEV of a ublk device waits for the mapping of its descriptors. The
// finalizer is the safety net for what was forgotten and for the end of a worker.
#include <sys/mman.h>

#include <memory>

#include "convert.h"

namespace uring {
namespace {

struct Mapping {
  void* address;
  size_t length;
  bool owned;
};

void Release(Mapping* mapping) {
  if (mapping->owned) munmap(mapping->address, mapping->length);
  mapping->owned = false;
}

Napi::Value MapMemory(const Napi::CallbackInfo& info) {
  const size_t length = U64(info, 0);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | I32(info, 1);
  void* address = mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (address == MAP_FAILED) return Result(info.Env(), -1);
  return WrapMapping(info.Env(), address, length, true);
}

// mapFile(fd, offset, length, prot, flags)
Napi::Value MapFile(const Napi::CallbackInfo& info) {
  const size_t length = U64(info, 2);
  void* address = mmap(nullptr, length, I32(info, 3), I32(info, 4), I32(info, 0),
                       static_cast<off_t>(U64(info, 1)));
  if (address == MAP_FAILED) return Result(info.Env(), -1);
  return WrapMapping(info.Env(), address, length, true);
}

Napi::Value Unmap(const Napi::CallbackInfo& info) {
  auto buffer = info[0].As<Napi::ArrayBuffer>();
  void* address = buffer.Data();
  const size_t length = buffer.ByteLength();
  if (length == 0) return Number(info.Env(), 0);
  // Detached before it is unmapped, so that no view can reach the hole.
  Napi::Value tag = info[1];
  auto* mapping = tag.As<Napi::External<Mapping>>().Data();
  if (mapping->address != address || mapping->length != length) {
    errno = EINVAL;
    return Result(info.Env(), -1);
  }
  Detach(info.Env(), buffer);
  Release(mapping);
  return Number(info.Env(), 0);
}

Napi::Value AddressOf(const Napi::CallbackInfo& info) {
  auto buffer = info[0].As<Napi::ArrayBuffer>();
  return Number(info.Env(), static_cast<double>(reinterpret_cast<uintptr_t>(buffer.Data())));
}

// advise(buffer, offset, length, advice)
Napi::Value Advise(const Napi::CallbackInfo& info) {
  auto buffer = info[0].As<Napi::ArrayBuffer>();
  auto* base = static_cast<uint8_t*>(buffer.Data());
  const uint64_t offset = U64(info, 1);
  const uint64_t length = U64(info, 2);
  if (offset + length > buffer.ByteLength()) {
    errno = EINVAL;
    return Result(info.Env(), -1);
  }
  return Result(info.Env(), madvise(base + offset, length, I32(info, 3)));
}

}  // namespace

void Detach(Napi::Env env, Napi::Value buffer) {
  napi_status status = napi_detach_arraybuffer(env, buffer);
  NAPI_THROW_IF_FAILED_VOID(env, status);
}

// Answers {buffer, mapping}: the mapping's handle goes back to unmap() with its buffer.
Napi::Value WrapMapping(Napi::Env env, void* address, size_t length, bool owned) {
  // Two owners: the handle that unmap() takes, and the buffer's finalizer.
  auto shared = std::make_shared<Mapping>(Mapping{address, length, owned});
  auto* held_by_buffer = new std::shared_ptr<Mapping>(shared);
  auto* held_by_handle = new std::shared_ptr<Mapping>(shared);
  auto buffer = Napi::ArrayBuffer::New(
      env, address, length,
      [](Napi::Env, void*, std::shared_ptr<Mapping>* held) {
        Release(held->get());
        delete held;
      },
      held_by_buffer);
  auto handle = Napi::External<Mapping>::New(
      env, shared.get(),
      [](Napi::Env, Mapping*, std::shared_ptr<Mapping>* held) { delete held; }, held_by_handle);
  auto result = Napi::Object::New(env);
  result["buffer"] = buffer;
  result["mapping"] = handle;
  return result;
}

void InitMemory(Napi::Env env, Napi::Object exports) {
  exports["mapMemory"] = Napi::Function::New(env, MapMemory, "mapMemory");
  exports["mapFile"] = Napi::Function::New(env, MapFile, "mapFile");
  exports["unmap"] = Napi::Function::New(env, Unmap, "unmap");
  exports["addressOf"] = Napi::Function::New(env, AddressOf, "addressOf");
  exports["advise"] = Napi::Function::New(env, Advise, "advise");
}

}  // namespace uring
