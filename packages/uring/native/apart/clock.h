#pragma once

#include <cstdint>
#include <ctime>

inline int64_t NowUs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

inline int64_t NowMs() { return NowUs() / 1000; }
