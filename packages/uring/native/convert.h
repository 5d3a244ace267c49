// N-API conversions shared by all files of the addon. Nothing else converts values.
#pragma once

#include <napi.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

namespace uring {

inline int32_t I32(const Napi::CallbackInfo& info, size_t index) {
  return info[index].As<Napi::Number>().Int32Value();
}

inline uint32_t U32(const Napi::CallbackInfo& info, size_t index) {
  return info[index].As<Napi::Number>().Uint32Value();
}

// Offsets, lengths and addresses travel as doubles: exact up to 2^53.
inline uint64_t U64(const Napi::CallbackInfo& info, size_t index) {
  return static_cast<uint64_t>(info[index].As<Napi::Number>().DoubleValue());
}

inline std::string Text(const Napi::CallbackInfo& info, size_t index) {
  return info[index].As<Napi::String>().Utf8Value();
}

inline Napi::Value Number(Napi::Env env, double value) { return Napi::Number::New(env, value); }

// Every call answers like the system call below it: a value >= 0, or a negative errno. The
// TypeScript side turns that into errors, because only it knows what was asked of which object.
inline Napi::Value Result(Napi::Env env, int64_t value) {
  return Napi::Number::New(env, static_cast<double>(value < 0 ? -errno : value));
}

void InitRing(Napi::Env env, Napi::Object exports);
void InitMemory(Napi::Env env, Napi::Object exports);
void InitSystem(Napi::Env env, Napi::Object exports);
void InitWatcher(Napi::Env env, Napi::Object exports);

// Wraps memory for JavaScript without a copy. `owner` is kept until the buffer is collected, so that
// no view can outlive what it looks at.
Napi::ArrayBuffer WrapMemory(Napi::Env env, void* address, size_t length,
                             std::shared_ptr<void> owner);
// Makes every view of the buffer empty; the memory itself stays.
void Detach(Napi::Env env, Napi::Value buffer);

// What JavaScript holds of an object of ours; the object lives at least as long as this.
template <typename Object>
Napi::External<Object> Handle(Napi::Env env, const std::shared_ptr<Object>& object) {
  auto held = std::make_unique<std::shared_ptr<Object>>(object);
  auto handle = Napi::External<Object>::New(
      env, object.get(), [](Napi::Env, Object*, std::shared_ptr<Object>* held) { delete held; },
      held.get());
  held.release();
  return handle;
}

template <typename Object>
Object& FromHandle(const Napi::CallbackInfo& info, size_t index) {
  return *info[index].As<Napi::External<Object>>().Data();
}

}  // namespace uring
