#include "exchange.h"

#include <sys/prctl.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "clock.h"
#include "mapper.h"
#include "sync.h"

namespace {

/** Of a turn that finds little to write. */
constexpr int64_t kSettledMs = 10;
constexpr int64_t kWriteBackMs = 2'000;
constexpr int kWriteBacksMax = 5;

/**
 * Users wait while the freeze writes dirty data: each turn leaves only what was written during the one before. Errors
 * and delays here are left to the freeze.
 */
void WriteBack(const char* minor) {
  const std::string path = std::string("/dev/dm-") + minor;
  const int64_t deadline_ms = NowMs() + kWriteBackMs;
  std::string status;
  for (int i = 0; i < kWriteBacksMax; i++) {
    const int64_t began_ms = NowMs();
    if (began_ms >= deadline_ms) return;
    Sync(deadline_ms - began_ms, {path.c_str()}, status);
    if (NowMs() - began_ms < kSettledMs) return;
  }
}

int Failed(int how, const char* what, int64_t status) {
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(static_cast<int>(-status)));
  return how;
}

}  // namespace

int Exchange(const char* major, const char* minor, bool may_page) {
  prctl(PR_SET_NAME, "apart:exchange");
  // Before memory is locked, because an abandoned child shares it; and before the node is examined, because it takes
  // a while.
  WriteBack(minor);
  const int64_t locked = StayInMemory();
  if (locked < 0 && !may_page) {
    return Failed(kNotBegun, "mlockall (needs CAP_IPC_LOCK or LimitMEMLOCK=infinity)", locked);
  }
  const dev_t node = NodeOf(major, minor);
  const Mapper mapper;
  if (mapper.status() < 0) return Failed(kNotBegun, "/dev/mapper/control", mapper.status());
  std::string table;
  bool suspended = false;
  if (const int64_t status = mapper.Table(node, true, table, &suspended); status < 0) {
    return Failed(kNotBegun, "its table in waiting", status);
  }
  // The call would end a suspension that another program has begun during the write-back, after the node was
  // examined.
  if (suspended) return Failed(kNotBegun, "another program has suspended it", -EBUSY);
  // Without an inactive table the call would only resume.
  if (table.empty()) return Failed(kNotBegun, "its table in waiting", -ENOENT);
  const int64_t began_us = NowUs();
  const int64_t status = mapper.Exchange(node);
  if (status == 0) {
    std::printf("%" PRId64 "\n", NowUs() - began_us);
    return EXIT_SUCCESS;
  }
  // The kernel has destroyed the table, or made it inactive again. An inactive one may be another program's by now,
  // which resumes the node, too: it is neither dropped nor made live.
  mapper.Clear(node, table);
  mapper.Resume(node);
  return Failed(EXIT_FAILURE, "the exchange of tables", status);
}
