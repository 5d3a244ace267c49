// System calls that node:fs does not offer. Mechanism only: which call with which number is decided
// in TypeScript.
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "convert.h"

namespace uring {
namespace {

// A call that may block for long (freezing a file system, opening a device) on a pool thread.
class BlockingCall : public Napi::AsyncWorker {
 public:
  BlockingCall(Napi::Env env, std::function<int64_t()> call)
      : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), call_(std::move(call)) {}
  Napi::Promise Promise() { return deferred_.Promise(); }
  void Keep(Napi::Object object) { kept_ = Napi::Persistent(object); }

 protected:
  void Execute() override {
    errno = 0;
    const int64_t value = call_();
    result_ = value < 0 ? -errno : value;
  }
  void OnOK() override { deferred_.Resolve(Number(Env(), static_cast<double>(result_))); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  std::function<int64_t()> call_;
  Napi::ObjectReference kept_;
  int64_t result_ = 0;
};

Napi::Value RunBlocking(Napi::Env env, std::function<int64_t()> call, Napi::Value keep) {
  auto* worker = new BlockingCall(env, std::move(call));
  if (keep.IsObject()) worker->Keep(keep.As<Napi::Object>());
  Napi::Promise promise = worker->Promise();
  worker->Queue();
  return promise;
}

// The third argument of ioctl: the bytes of a view, or a plain number.
uintptr_t Argument(Napi::Value value) {
  if (value.IsDataView()) {
    auto view = value.As<Napi::DataView>();
    return reinterpret_cast<uintptr_t>(view.Data());
  }
  if (value.IsTypedArray()) {
    auto array = value.As<Napi::TypedArray>();
    auto* base = static_cast<uint8_t*>(array.ArrayBuffer().Data());
    return reinterpret_cast<uintptr_t>(base + array.ByteOffset());
  }
  if (value.IsNumber()) return static_cast<uintptr_t>(value.As<Napi::Number>().Int64Value());
  return 0;
}

// ioctl(fd, request, bytes | number)
Napi::Value Ioctl(const Napi::CallbackInfo& info) {
  return Result(info.Env(), ioctl(I32(info, 0), U32(info, 1), Argument(info[2])));
}

// ioctlAsync(fd, request, bytes | number) -> promise
Napi::Value IoctlAsync(const Napi::CallbackInfo& info) {
  const int fd = I32(info, 0);
  const uint32_t request = U32(info, 1);
  const uintptr_t argument = Argument(info[2]);
  return RunBlocking(info.Env(), [=] { return ioctl(fd, request, argument); }, info[2]);
}

// readClock(Float64Array) -> 0: its first element becomes the microseconds of a monotonic clock. A number that is
// returned would be an object of JavaScript's heap. Written on the C interface, because first writes call it.
napi_value ReadClock(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value view;
  napi_get_cb_info(env, info, &count, &view, nullptr, nullptr);
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  napi_get_typedarray_info(env, view, &type, &length, &data, nullptr, nullptr);
  const bool fits = type == napi_float64_array && length > 0;
  if (fits) {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    *static_cast<double*>(data) =
        static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
  }
  napi_value result;
  napi_create_int32(env, fits ? 0 : -EINVAL, &result);
  return result;
}

int LockOpenFile(int fd, int32_t type) {
  struct flock lock {};
  lock.l_type = static_cast<short>(type);
  lock.l_whence = SEEK_SET;
  return fcntl(fd, F_OFD_SETLK, &lock);
}

// lockFile(fd, type): an open-file-description lock on the whole file; F_RDLCK, F_WRLCK or F_UNLCK
Napi::Value LockFile(const Napi::CallbackInfo& info) {
  return Result(info.Env(), LockOpenFile(I32(info, 0), I32(info, 1)));
}

// lockFileAsync(fd, type) -> promise
Napi::Value LockFileAsync(const Napi::CallbackInfo& info) {
  const int fd = I32(info, 0);
  const int32_t type = I32(info, 1);
  return RunBlocking(info.Env(), [=] { return LockOpenFile(fd, type); }, info.Env().Undefined());
}

// lockWholeFile(fd): flock(2), exclusively and without waiting
Napi::Value LockWholeFile(const Napi::CallbackInfo& info) {
  return Result(info.Env(), flock(I32(info, 0), LOCK_EX | LOCK_NB));
}

// endDirectIo(fd): takes O_DIRECT off the open file
Napi::Value EndDirectIo(const Napi::CallbackInfo& info) {
  const int flags = fcntl(I32(info, 0), F_GETFL);
  if (flags < 0) return Result(info.Env(), flags);
  return Result(info.Env(), fcntl(I32(info, 0), F_SETFL, flags & ~O_DIRECT));
}

Napi::Value CreateEventFd(const Napi::CallbackInfo& info) {
  return Result(info.Env(), eventfd(U32(info, 0), I32(info, 1)));
}

Napi::Value CreateMemoryFile(const Napi::CallbackInfo& info) {
  return Result(info.Env(), memfd_create(Text(info, 0).c_str(), U32(info, 1)));
}

// listenLocal(path, mode, backlog) -> descriptor of a listening unix stream socket. Nobody can connect
// before it has its mode: that takes listen(2).
Napi::Value ListenLocal(const Napi::CallbackInfo& info) {
  const std::string path = Text(info, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return Result(info.Env(), -1);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Result(info.Env(), -1);
  const bool is_bound = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  if (is_bound && chmod(path.c_str(), U32(info, 1)) == 0 && listen(fd, I32(info, 2)) == 0) {
    return Result(info.Env(), fd);
  }
  const int failure = errno;
  if (is_bound) unlink(path.c_str());
  close(fd);
  errno = failure;
  return Result(info.Env(), -1);
}

// socketPair() -> descriptors of two unix stream sockets that are connected with each other
Napi::Value SocketPair(const Napi::CallbackInfo& info) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return Result(info.Env(), -1);
  auto pair = Napi::Array::New(info.Env(), 2);
  pair[0u] = Number(info.Env(), ends[0]);
  pair[1u] = Number(info.Env(), ends[1]);
  return pair;
}

// duplicate(fd) -> another descriptor of the same open file, close-on-exec
Napi::Value Duplicate(const Napi::CallbackInfo& info) {
  return Result(info.Env(), fcntl(I32(info, 0), F_DUPFD_CLOEXEC, 0));
}

// setSocketOption(fd, level, option, value): setsockopt(2) with a number
Napi::Value SetSocketOption(const Napi::CallbackInfo& info) {
  const int value = I32(info, 3);
  return Result(info.Env(), setsockopt(I32(info, 0), I32(info, 1), I32(info, 2), &value, sizeof value));
}

Napi::Value Prctl(const Napi::CallbackInfo& info) {
  return Result(info.Env(), prctl(I32(info, 0), static_cast<unsigned long>(U64(info, 1)), 0, 0, 0));
}

// lockMemory(address, length, flags): mlock2(2)
Napi::Value LockMemory(const Napi::CallbackInfo& info) {
  auto* address = reinterpret_cast<void*>(U64(info, 0));
  return Result(info.Env(), mlock2(address, U64(info, 1), U32(info, 2)));
}

Napi::Value ThreadId(const Napi::CallbackInfo& info) {
  return Result(info.Env(), syscall(SYS_gettid));
}

// replaceProcess(path, arguments, lastFd): execv(2); comes back only with an error. Node has its descriptors
// closed on exec, the standard ones among them: those up to lastFd are to stay.
Napi::Value ReplaceProcess(const Napi::CallbackInfo& info) {
  const std::string path = Text(info, 0);
  const auto given = info[1].As<Napi::Array>();
  std::vector<std::string> words{path};
  for (uint32_t i = 0; i < given.Length(); i++) {
    words.push_back(given.Get(i).As<Napi::String>().Utf8Value());
  }
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  for (int fd = 0; fd <= I32(info, 2); fd++) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags >= 0) fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
  }
  return Result(info.Env(), execv(path.c_str(), argv.data()));
}

// What a thread that must not end by itself leaves behind when it does.
void EndProcess(void* status) { _exit(static_cast<int>(reinterpret_cast<intptr_t>(status))); }

// guardThread(status): when the calling thread's environment ends, however it comes to that, the process
// ends with this status, before the thread gives anything back.
Napi::Value GuardThread(const Napi::CallbackInfo& info) {
  void* status = reinterpret_cast<void*>(static_cast<intptr_t>(I32(info, 0)));
  return Number(info.Env(), napi_add_env_cleanup_hook(info.Env(), EndProcess, status));
}

// releaseThread(status): takes guardThread(status) back
Napi::Value ReleaseThread(const Napi::CallbackInfo& info) {
  void* status = reinterpret_cast<void*>(static_cast<intptr_t>(I32(info, 0)));
  return Number(info.Env(), napi_remove_env_cleanup_hook(info.Env(), EndProcess, status));
}

// endProcess(status): _exit(2)
Napi::Value EndProcessNow(const Napi::CallbackInfo& info) { _exit(I32(info, 0)); }

// sendDatagram(path, text): to a Unix socket, and never waits; a name of the abstract kind begins with "@"
Napi::Value SendDatagram(const Napi::CallbackInfo& info) {
  const std::string path = Text(info, 0);
  const std::string text = Text(info, 1);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return Number(info.Env(), -ENAMETOOLONG);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = 0;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Result(info.Env(), -1);
  const ssize_t sent = sendto(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                              reinterpret_cast<const sockaddr*>(&address), length);
  Napi::Value result = Result(info.Env(), sent);
  close(fd);
  return result;
}

// sendNow(fd, bytes): to a connected socket, and never waits
Napi::Value SendNow(const Napi::CallbackInfo& info) {
  auto bytes = info[1].As<Napi::Uint8Array>();
  const ssize_t sent = send(I32(info, 0), bytes.Data(), bytes.ByteLength(), MSG_DONTWAIT | MSG_NOSIGNAL);
  return Result(info.Env(), sent);
}

// setAffinity(cpu): binds the calling thread to one CPU
Napi::Value SetAffinity(const Napi::CallbackInfo& info) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(U32(info, 0), &set);
  return Result(info.Env(), sched_setaffinity(0, sizeof set, &set));
}

// setCapability(capability, effective): whether it was effective for the calling thread until now.
// Neither call has a wrapper in the C library.
Napi::Value SetCapability(const Napi::CallbackInfo& info) {
  const uint32_t capability = U32(info, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
  if (capability > CAP_LAST_CAP) return Number(info.Env(), -EINVAL);
  if (syscall(SYS_capget, &header, sets) < 0) return Result(info.Env(), -1);
  uint32_t& effective = sets[CAP_TO_INDEX(capability)].effective;
  const uint32_t bit = CAP_TO_MASK(capability);
  const bool was = (effective & bit) != 0;
  effective = info[1].ToBoolean() ? effective | bit : effective & ~bit;
  if (syscall(SYS_capset, &header, sets) < 0) return Result(info.Env(), -1);
  return Number(info.Env(), was);
}

// directIoAlignment(fd) -> [memory, offset] in bytes, or a negative errno. Both are 0 where the kernel
// or the file system cannot say. The fields are newer than the C library's struct statx:
//   152 u32 stx_dio_mem_align   156 u32 stx_dio_offset_align
Napi::Value DirectIoAlignment(const Napi::CallbackInfo& info) {
  constexpr unsigned kDirectIoAlign = 0x2000;
  alignas(8) uint8_t bytes[256] = {};
  const int fd = I32(info, 0);
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, kDirectIoAlign, bytes) < 0) {
    return Result(info.Env(), -1);
  }
  uint32_t alignment[2];
  std::memcpy(alignment, bytes + 152, sizeof alignment);
  auto result = Napi::Array::New(info.Env(), 2);
  result[0u] = Number(info.Env(), alignment[0]);
  result[1u] = Number(info.Env(), alignment[1]);
  return result;
}

}  // namespace

void InitSystem(Napi::Env env, Napi::Object exports) {
  exports["ioctl"] = Napi::Function::New(env, Ioctl, "ioctl");
  exports["ioctlAsync"] = Napi::Function::New(env, IoctlAsync, "ioctlAsync");
  exports["lockFile"] = Napi::Function::New(env, LockFile, "lockFile");
  exports["lockFileAsync"] = Napi::Function::New(env, LockFileAsync, "lockFileAsync");
  exports["lockWholeFile"] = Napi::Function::New(env, LockWholeFile, "lockWholeFile");
  exports["endDirectIo"] = Napi::Function::New(env, EndDirectIo, "endDirectIo");
  exports["eventFd"] = Napi::Function::New(env, CreateEventFd, "eventFd");
  exports["memoryFile"] = Napi::Function::New(env, CreateMemoryFile, "memoryFile");
  exports["setSocketOption"] = Napi::Function::New(env, SetSocketOption, "setSocketOption");
  exports["duplicate"] = Napi::Function::New(env, Duplicate, "duplicate");
  exports["socketPair"] = Napi::Function::New(env, SocketPair, "socketPair");
  exports["listenLocal"] = Napi::Function::New(env, ListenLocal, "listenLocal");
  exports["prctl"] = Napi::Function::New(env, Prctl, "prctl");
  exports["lockMemory"] = Napi::Function::New(env, LockMemory, "lockMemory");
  exports["threadId"] = Napi::Function::New(env, ThreadId, "threadId");
  exports["directIoAlignment"] = Napi::Function::New(env, DirectIoAlignment, "directIoAlignment");
  exports["endProcess"] = Napi::Function::New(env, EndProcessNow, "endProcess");
  exports["guardThread"] = Napi::Function::New(env, GuardThread, "guardThread");
  exports["releaseThread"] = Napi::Function::New(env, ReleaseThread, "releaseThread");
  exports["replaceProcess"] = Napi::Function::New(env, ReplaceProcess, "replaceProcess");
  exports["setCapability"] = Napi::Function::New(env, SetCapability, "setCapability");
  exports["sendNow"] = Napi::Function::New(env, SendNow, "sendNow");
  exports["sendDatagram"] = Napi::Function::New(env, SendDatagram, "sendDatagram");
  exports["setAffinity"] = Napi::Function::New(env, SetAffinity, "setAffinity");
  napi_value clock;
  napi_create_function(env, "readClock", NAPI_AUTO_LENGTH, ReadClock, nullptr, &clock);
  exports["readClock"] = Napi::Value(env, clock);
}

}  // namespace uring
