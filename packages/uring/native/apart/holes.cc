#include "holes.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "clock.h"
#include "file.h"

namespace {

/** Reading a smaller hole costs less than tracking it. */
constexpr int64_t kHoleBytesMin = 64 << 10;
constexpr int kHolesMax = 65536;

/** Holes between two bytes of a file, relative to the first. */
int64_t HolesOf(int file, int64_t begin, int64_t end, int64_t until_ms, std::string& lines) {
  int holes = 0;
  for (int64_t at = begin; at < end && holes < kHolesMax && NowMs() < until_ms;) {
    int64_t data = Checked(lseek(file, at, SEEK_DATA));
    if (data == -ENXIO) data = end;
    if (data < 0) return data;
    data = std::min(data, end);
    if (data - at >= kHoleBytesMin) {
      lines += std::to_string(at - begin) + " " + std::to_string(data - at) + "\n";
      holes++;
    }
    if (data == end) return 0;
    at = Checked(lseek(file, data, SEEK_HOLE));
    if (at < 0) return at;
  }
  return 0;
}

/** The file behind a loop device, not behind a partition of one. */
std::string BackingPath(dev_t device) {
  char path[80];
  std::snprintf(path, sizeof path, "/sys/dev/block/%u:%u/loop/backing_file", major(device),
                minor(device));
  const File file(path, O_RDONLY);
  if (file < 0) return "";
  char text[4097];
  const ssize_t length = read(file, text, sizeof text - 1);
  return length > 0 && text[length - 1] == '\n' ? std::string(text, length - 1) : "";
}

int64_t LoopHoles(int device, dev_t number, int64_t until_ms, std::string& lines) {
  const std::string path = BackingPath(number);
  loop_info64 info{};
  if (path.empty()) return -ENOTTY;
  if (ioctl(device, LOOP_GET_STATUS64, &info) < 0) return -errno;
  const File file(path.c_str(), O_RDONLY | O_NONBLOCK);
  if (file < 0) return file;
  struct stat found;
  if (fstat(file, &found) < 0) return -errno;
  // The path may lead to another file by now, or in this mount namespace.
  const bool is_same = found.st_dev == info.lo_device && found.st_ino == info.lo_inode;
  if (!is_same || !S_ISREG(found.st_mode) || info.lo_encrypt_type != 0) return -ENOTTY;
  if (fsync(device) < 0) return -errno;
  const int64_t begin = static_cast<int64_t>(info.lo_offset);
  const int64_t size = static_cast<int64_t>(info.lo_sizelimit);
  const int64_t end = size == 0 ? found.st_size : std::min<int64_t>(found.st_size, begin + size);
  return HolesOf(file, begin, end, until_ms, lines);
}

}  // namespace

int64_t Holes(const char* path, int64_t limit_ms, std::string& lines) {
  const int64_t until_ms = NowMs() + limit_ms;
  const File file(path, O_RDONLY | O_NONBLOCK);
  if (file < 0) return file;
  struct stat found;
  if (fstat(file, &found) < 0) return -errno;
  if (S_ISREG(found.st_mode)) return HolesOf(file, 0, found.st_size, until_ms, lines);
  if (!S_ISBLK(found.st_mode)) return -ENOTTY;
  return LoopHoles(file, found.st_rdev, until_ms, lines);
}
