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

#include <thread>

#include "convert.h"

namespace uring {
namespace {

class Watcher : public Napi::ObjectWrap<Watcher> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Watcher",
                       {InstanceMethod<&Watcher::Arm>("arm"), InstanceMethod<&Watcher::Close>("close"),
                        InstanceMethod<&Watcher::Ref>("ref"),
                        InstanceMethod<&Watcher::Unref>("unref")});
  }

  // new Watcher(fd, callback)
  explicit Watcher(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Watcher>(info) {
    fd_ = I32(info, 0);
    arm_ = eventfd(0, EFD_CLOEXEC);
    stop_ = eventfd(0, EFD_CLOEXEC);
    if (arm_ < 0 || stop_ < 0) throw Napi::Error::New(info.Env(), std::strerror(errno));
    callback_ = Napi::ThreadSafeFunction::New(info.Env(), info[1].As<Napi::Function>(), "watcher", 0, 1);
    callback_.Unref(info.Env());
    thread_ = std::thread([this] { Run(); });
  }

  ~Watcher() override { Stop(); }

 private:
  static void Signal(int event) {
    const uint64_t one = 1;
    while (write(event, &one, sizeof one) < 0 && errno == EINTR) continue;
  }

  // True when `fd` became readable, false when the watcher is to stop.
  bool Wait(int fd) const {
    pollfd fds[2] = {{fd, POLLIN, 0}, {stop_, POLLIN, 0}};
    while (poll(fds, 2, -1) < 0 && errno == EINTR) continue;
    return fds[1].revents == 0;
  }

  void Run() {
    uint64_t count = 0;
    while (Wait(arm_)) {
      while (read(arm_, &count, sizeof count) < 0 && errno == EINTR) continue;
      if (!Wait(fd_)) return;
      callback_.NonBlockingCall();
    }
  }

  void Stop() {
    if (!thread_.joinable()) return;
    Signal(stop_);
    thread_.join();
    callback_.Release();
    close(arm_);
    close(stop_);
  }

  Napi::Value Arm(const Napi::CallbackInfo& info) {
    if (thread_.joinable()) Signal(arm_);
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

  int fd_ = -1;
  int arm_ = -1;
  int stop_ = -1;
  Napi::ThreadSafeFunction callback_;
  std::thread thread_;
};

}  // namespace

void InitWatcher(Napi::Env env, Napi::Object exports) { exports["Watcher"] = Watcher::Define(env); }

}  // namespace uring
