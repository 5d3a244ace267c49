#include "convert.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  uring::InitRing(env, exports);
  uring::InitMemory(env, exports);
  uring::InitSystem(env, exports);
  uring::InitWatcher(env, exports);
  return exports;
}

NODE_API_MODULE(uring, Init)
