// Tells an event loop when a descriptor becomes readable.
//
// Node offers no poll for arbitrary descriptors, and a blocking read would hold one of libuv's few
// pool threads for as long as a command takes. A watcher is one thread that sleeps until it is
// armed, polls once, calls back once, and sleeps again:
//
//   arm() ──▶ armed ──▶ poll(fd, stop) ──▶ callback on the event loop ──▶ asleep
//
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>
#include <thread>

#include "convert.h"

namespace uring {
namespace {

// A counter that one thread raises and another one polls.
struct Event {
  int fd = eventfd(0, EFD_CLOEXEC);

  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { Close(); }
  void Close() {
    if (fd >= 0) close(fd);
    fd = -1;
  }
  void Raise() const {
    const uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) continue;
  }
  void Lower() const {
    uint64_t count = 0;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR) continue;
  }
};

class Watcher : public Napi::ObjectWrap<Watcher> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Watcher",
                       {InstanceMethod<&Watcher::Arm>("arm"), InstanceMethod<&Watcher::Close>("close"),
                        InstanceMethod<&Watcher::Ref>("ref"),
                        InstanceMethod<&Watcher::Unref>("unref")});
  }

  // new Watcher(fd, callback)
  explicit Watcher(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<Watcher>(info), env_(info.Env()), fd_(I32(info, 0)) {
    if (arm_.fd < 0 || stop_.fd < 0) throw Napi::Error::New(env_, std::strerror(errno));
    callback_ = Napi::ThreadSafeFunction::New(env_, info[1].As<Napi::Function>(), "watcher", 0, 1);
    callback_.Unref(env_);
    try {
      thread_ = std::thread([this] { Run(); });
    } catch (const std::system_error& error) {
      callback_.Release();
      throw Napi::Error::New(env_, error.what());
    }
    // The end of the environment takes the callback away under the thread; hooks run newest first,
    // so this one still finds it there.
    napi_add_env_cleanup_hook(env_, EndThread, this);
  }

  ~Watcher() override { Stop(); }

 private:
  static void EndThread(void* self) { static_cast<Watcher*>(self)->JoinThread(); }

  // True when `fd` became readable, false when the watcher is to stop.
  bool Wait(int fd) const {
    pollfd fds[2] = {{fd, POLLIN, 0}, {stop_.fd, POLLIN, 0}};
    while (poll(fds, 2, -1) < 0 && errno == EINTR) continue;
    return fds[1].revents == 0;
  }

  void Run() {
    while (Wait(arm_.fd)) {
      arm_.Lower();
      if (!Wait(fd_)) return;
      callback_.NonBlockingCall();
    }
  }

  void JoinThread() {
    stop_.Raise();
    thread_.join();
    callback_.Release();
    arm_.Close();
    stop_.Close();
  }

  void Stop() {
    if (!thread_.joinable()) return;
    napi_remove_env_cleanup_hook(env_, EndThread, this);
    JoinThread();
  }

  Napi::Value Arm(const Napi::CallbackInfo& info) {
    if (thread_.joinable()) arm_.Raise();
    return info.Env().Undefined();
  }
  Napi::Value Close(const Napi::CallbackInfo& info) {
    Stop();
    return info.Env().Undefined();
  }
  // While it is referenced the watcher keeps the event loop alive.
  Napi::Value Ref(const Napi::CallbackInfo& info) {
    if (thread_.joinable()) callback_.Ref(info.Env());
    return info.Env().Undefined();
  }
  Napi::Value Unref(const Napi::CallbackInfo& info) {
    if (thread_.joinable()) callback_.Unref(info.Env());
    return info.Env().Undefined();
  }

  Napi::Env env_;
  int fd_;
  Event arm_;
  Event stop_;
  Napi::ThreadSafeFunction callback_;
  std::thread thread_;
};

}  // namespace

void InitWatcher(Napi::Env env, Napi::Object exports) { exports["Watcher"] = Watcher::Define(env); }

}  // namespace uring
