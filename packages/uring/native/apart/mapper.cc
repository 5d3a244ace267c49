#include "mapper.h"

#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace {

constexpr const char* kControl = "/dev/mapper/control";
/**
 * For udev's rules, as in dmsetup: the event is one of the node itself, and only the rules create links for it
 * (libdevmapper.h: DM_UDEV_PRIMARY_SOURCE_FLAG, DM_UDEV_DISABLE_LIBRARY_FALLBACK).
 */
constexpr uint32_t kUdevFlags = 0x0060U << 16;
constexpr size_t kTableBytes = 1 << 16;
/** Hundreds of thousands of targets. */
constexpr size_t kTableBytesMax = 1 << 26;

dm_ioctl WordsFor(dev_t node, size_t bytes) {
  dm_ioctl words{};
  words.version[0] = DM_VERSION_MAJOR;
  words.data_size = static_cast<uint32_t>(bytes);
  words.data_start = sizeof words;
  words.dev = node;
  return words;
}

int64_t Ask(int control, unsigned long request, dev_t node, uint32_t event = 0) {
  if (control < 0) return control;
  dm_ioctl words = WordsFor(node, sizeof(dm_ioctl));
  words.event_nr = event;
  return Checked(ioctl(control, request, &words));
}

void AppendTargets(const std::vector<char>& answer, std::string& lines) {
  dm_ioctl words;
  std::memcpy(&words, answer.data(), sizeof words);
  // Each contains the offset to the next one.
  size_t at = words.data_start;
  for (uint32_t i = 0; i < words.target_count; i++) {
    dm_target_spec target;
    if (at + sizeof target > answer.size()) return;
    std::memcpy(&target, answer.data() + at, sizeof target);
    const std::string_view type(target.target_type, strnlen(target.target_type, sizeof target.target_type));
    const char* text = answer.data() + at + sizeof target;
    const size_t length = strnlen(text, answer.size() - (at + sizeof target));
    const bool whole = type == "linear" || type == "striped" || type == "thin";
    lines += std::to_string(target.sector_start) + " " + std::to_string(target.length) + " ";
    lines += type;
    if (whole) (lines += " ") += std::string_view(text, length);
    lines += "\n";
    at = words.data_start + target.next;
  }
}

}  // namespace

Mapper::Mapper() : control_(kControl, O_RDWR) {}

int64_t Mapper::Table(dev_t node, bool waiting, std::string& lines, bool* suspended) const {
  if (control_ < 0) return control_;
  for (size_t bytes = kTableBytes; bytes <= kTableBytesMax; bytes *= 4) {
    std::vector<char> answer(bytes);
    dm_ioctl words = WordsFor(node, bytes);
    words.flags = DM_STATUS_TABLE_FLAG | DM_NOFLUSH_FLAG;
    if (waiting) words.flags |= DM_QUERY_INACTIVE_TABLE_FLAG;
    std::memcpy(answer.data(), &words, sizeof words);
    const int64_t status = Checked(ioctl(control_, DM_TABLE_STATUS, answer.data()));
    if (status < 0) return status;
    std::memcpy(&words, answer.data(), sizeof words);
    if ((words.flags & DM_BUFFER_FULL_FLAG) != 0) continue;
    AppendTargets(answer, lines);
    if (suspended != nullptr) *suspended = (words.flags & DM_SUSPEND_FLAG) != 0;
    return 0;
  }
  return -EFBIG;
}

int64_t Mapper::Exchange(dev_t node) const {
  return Ask(control_, DM_DEV_SUSPEND, node, kUdevFlags);
}

int64_t Mapper::Clear(dev_t node, const std::string& table) const {
  std::string waiting;
  const int64_t status = Table(node, true, waiting);
  if (status < 0 || waiting.empty()) return status;
  if (waiting != table) return -EBUSY;
  return Ask(control_, DM_TABLE_CLEAR, node);
}

int64_t Mapper::Resume(dev_t node) const {
  if (control_ < 0) return control_;
  dm_ioctl words = WordsFor(node, sizeof(dm_ioctl));
  const int64_t status = Checked(ioctl(control_, DM_DEV_STATUS, &words));
  if (status < 0 || (words.flags & DM_SUSPEND_FLAG) == 0) return status;
  if ((words.flags & DM_INACTIVE_PRESENT_FLAG) != 0) return -EBUSY;
  return Exchange(node);
}

int64_t StayInMemory() {
  // A process with CAP_IPC_LOCK needs no limit, another one may be allowed a higher limit.
  rlimit limit{RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 && getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &limit);
  }
  return Checked(mlockall(MCL_CURRENT | MCL_FUTURE));
}

dev_t NodeOf(const char* major, const char* minor) {
  return makedev(std::atoi(major), std::atoi(minor));
}
