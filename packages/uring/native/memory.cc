// Memory and files mapped for JavaScript, which gets an external ArrayBuffer of those whose bytes it reads.
//
// A mapping must be given back by hand (unmap): one that waits for garbage collection keeps the
// file below it open, and DEL_DEV of a ublk device waits for the mapping of its descriptors. The
// finalizer is the safety net for what was forgotten and for the end of a worker.
#include <sys/mman.h>
#include <unistd.h>

#include "convert.h"

namespace uring {
namespace {

struct Mapping : std::enable_shared_from_this<Mapping> {
  void* address;
  size_t length;

  Mapping(void* address, size_t length) : address(address), length(length) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { Release(); }

  void Release() {
    if (length > 0) munmap(address, length);
    length = 0;
  }
};

// Answers {address, mapping}.
Napi::Value Mapped(Napi::Env env, void* address, size_t length) {
  auto result = Napi::Object::New(env);
  result["address"] = Number(env, static_cast<double>(reinterpret_cast<uintptr_t>(address)));
  result["mapping"] = Handle(env, std::make_shared<Mapping>(address, length));
  return result;
}

// bytesOf(mapping): once at most for each, as V8 has one ArrayBuffer for an address.
Napi::Value BytesOf(const Napi::CallbackInfo& info) {
  auto& mapping = FromHandle<Mapping>(info, 0);
  return WrapMemory(info.Env(), mapping.address, mapping.length, mapping.shared_from_this());
}

Napi::Value MapMemory(const Napi::CallbackInfo& info) {
  const size_t length = U64(info, 0);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | I32(info, 1);
  void* address = mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (address == MAP_FAILED) return Result(info.Env(), -1);
  return Mapped(info.Env(), address, length);
}

// The largest folio that the memory of a file consists of: what one table of page entries maps.
size_t LargestFolio() {
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return page * (page / sizeof(uint64_t));
}

// As mmap, at an address that lies in a folio of any size where its offset does. Linux 6.12 to 6.15 takes that for given
// when it registers memory: from elsewhere a registered buffer would be transferred to and from other pages of its folio
// (fixed by 3a3c6d61577d). Where a file has folios is for its file system to say: tmpfs with huge pages, as by now.
void* MapAlike(size_t length, int protection, int flags, int fd, off_t offset) {
  const size_t folio = LargestFolio();
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t whole = (length + page - 1) / page * page;
  // Others may map meanwhile: the place is found within what is taken.
  void* taken = mmap(nullptr, whole + folio, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
  if (taken == MAP_FAILED) return taken;
  auto* begin = static_cast<uint8_t*>(taken);
  const size_t before =
      (static_cast<uintptr_t>(offset) - reinterpret_cast<uintptr_t>(begin)) & (folio - 1);
  void* address = mmap(begin + before, length, protection, flags | MAP_FIXED, fd, offset);
  if (address == MAP_FAILED) {
    const int error = errno;
    munmap(begin, whole + folio);
    errno = error;
    return address;
  }
  if (before > 0) munmap(begin, before);
  if (before < folio) munmap(begin + before + whole, folio - before);
  return address;
}

// mapFile(fd, offset, length, prot, flags)
Napi::Value MapFile(const Napi::CallbackInfo& info) {
  const size_t length = U64(info, 2);
  const int protection = I32(info, 3);
  const auto offset = static_cast<off_t>(U64(info, 1));
  // What is only read is registered nowhere.
  void* address = (protection & PROT_WRITE) != 0
                      ? MapAlike(length, protection, I32(info, 4), I32(info, 0), offset)
                      : mmap(nullptr, length, protection, I32(info, 4), I32(info, 0), offset);
  if (address == MAP_FAILED) return Result(info.Env(), -1);
  return Mapped(info.Env(), address, length);
}

// unmap(mapping, buffer): the buffer is undefined where bytesOf() was not called.
Napi::Value Unmap(const Napi::CallbackInfo& info) {
  auto& mapping = FromHandle<Mapping>(info, 0);
  if (mapping.length == 0) return Number(info.Env(), 0);
  if (info[1].IsArrayBuffer()) {
    auto buffer = info[1].As<Napi::ArrayBuffer>();
    if (mapping.address != buffer.Data() || mapping.length != buffer.ByteLength()) {
      errno = EINVAL;
      return Result(info.Env(), -1);
    }
    // Detached before it is unmapped, so that no view can reach the hole.
    Detach(info.Env(), buffer);
  }
  mapping.Release();
  return Number(info.Env(), 0);
}

// advise(mapping, offset, length, advice)
Napi::Value Advise(const Napi::CallbackInfo& info) {
  auto& mapping = FromHandle<Mapping>(info, 0);
  auto* base = static_cast<uint8_t*>(mapping.address);
  const uint64_t offset = U64(info, 1);
  const uint64_t length = U64(info, 2);
  if (length > mapping.length || offset > mapping.length - length) {
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

// V8 counts the length as memory of its own, and collects all garbage of the thread for each 64 MiB that are new. It
// must not be taken off that count meanwhile: V8 takes it off, too, when the buffer is collected and when its thread
// ends, before anything here is called, and from Node 24 on a count below 0 ends the process.
Napi::ArrayBuffer WrapMemory(Napi::Env env, void* address, size_t length,
                             std::shared_ptr<void> owner) {
  auto held = std::make_unique<std::shared_ptr<void>>(std::move(owner));
  auto buffer = Napi::ArrayBuffer::New(
      env, address, length, [](Napi::Env, void*, std::shared_ptr<void>* held) { delete held; },
      held.get());
  held.release();
  return buffer;
}

void InitMemory(Napi::Env env, Napi::Object exports) {
  exports["mapMemory"] = Napi::Function::New(env, MapMemory, "mapMemory");
  exports["mapFile"] = Napi::Function::New(env, MapFile, "mapFile");
  exports["unmap"] = Napi::Function::New(env, Unmap, "unmap");
  exports["bytesOf"] = Napi::Function::New(env, BytesOf, "bytesOf");
  exports["advise"] = Napi::Function::New(env, Advise, "advise");
}

}  // namespace uring
