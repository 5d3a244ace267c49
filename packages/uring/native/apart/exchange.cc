#include "exchange.h"

#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "clock.h"
#include "file.h"

namespace {

constexpr const char* kControl = "/dev/mapper/control";
/**
 * For udev's rules, as dmsetup has it: the event is one of the node itself, and they alone make links for it
 * (libdevmapper.h: DM_UDEV_PRIMARY_SOURCE_FLAG, DM_UDEV_DISABLE_LIBRARY_FALLBACK).
 */
constexpr uint32_t kUdevFlags = 0x0060U << 16;

/** @returns 0, or a negative errno */
int64_t Ask(int control, unsigned long request, dev_t node, uint32_t event) {
  dm_ioctl words{};
  words.version[0] = DM_VERSION_MAJOR;
  words.data_size = sizeof words;
  words.data_start = sizeof words;
  words.dev = node;
  words.event_nr = event;
  return Checked(ioctl(control, request, &words));
}

/**
 * The rest of this program may lie behind the node: while that is suspended nothing can be read from it.
 * @returns 0, or a negative errno
 */
int64_t StayInMemory() {
  // Who has CAP_IPC_LOCK needs no limit, who has not may be allowed a higher one.
  rlimit limit{RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 && getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &limit);
  }
  return Checked(mlockall(MCL_CURRENT | MCL_FUTURE));
}

int Failed(const char* what, int64_t status) {
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(static_cast<int>(-status)));
  return EXIT_FAILURE;
}

}  // namespace

int Exchange(const char* major, const char* minor, bool may_page) {
  prctl(PR_SET_NAME, "apart:exchange");
  const int64_t locked = StayInMemory();
  if (locked < 0 && !may_page) return Failed("mlockall (needs CAP_IPC_LOCK or LimitMEMLOCK=infinity)", locked);
  const dev_t node = makedev(std::atoi(major), std::atoi(minor));
  const File control(kControl, O_RDWR);
  if (control < 0) return Failed(kControl, control);
  const int64_t began_us = NowUs();
  const int64_t status = Ask(control, DM_DEV_SUSPEND, node, kUdevFlags);
  if (status == 0) {
    std::printf("%" PRId64 "\n", NowUs() - began_us);
    return EXIT_SUCCESS;
  }
  Ask(control, DM_TABLE_CLEAR, node, 0);
  Ask(control, DM_DEV_SUSPEND, node, kUdevFlags);
  return Failed("the exchange of tables", status);
}
