// The program behind src/apart.ts, which says what it is for: one system call, then it ends.
//
//   uring-apart PARENT command PATH OP HEX   an IORING_OP_URING_CMD with up to 80 bytes
//   uring-apart PARENT fsync PATH
//   uring-apart PARENT claim PATH            opens it exclusively, and closes it
//   uring-apart PARENT write PATH TEXT
//   uring-apart PARENT extents PATH          FIEMAP with FIEMAP_FLAG_SYNC
//   uring-apart PARENT stat PATH
//   uring-apart PARENT open PATH             opens it for reading, and closes it
//   uring-apart PARENT unlink PATH
//   uring-apart PARENT read PATH AT BYTES    read(2) from some byte on
//   uring-apart PARENT sync MS PATH...       sync.h, and mounts.h, say what these three print
//   uring-apart PARENT mounts MS TYPE...
//   uring-apart PARENT loops NAME...         a line "FILE-SYSTEM DEVICE", each MAJOR:MINOR, for each
//   uring-apart PARENT reach MS DEVICE...
//   uring-apart 0 freeze PATH                FIFREEZE and FITHAW; ends with nobody but itself
//   uring-apart 0 thaw PATH
//   uring-apart PARENT loop PATH             LOOP_GET_STATUS64
//
// PARENT is the id of the process that asks. A call that it did not live to see begun is not made: it
// may be about a device whose number another one has by now.
//
// The first line of its output is what the call answered, or a negative errno. "extents" goes on with
// "DEVICE MODE" of the file, and for each extent "PHYSICAL LENGTH FLAGS"; "stat" with
// "DEVICE INODE MODE SPECIAL", the path without symbolic links, and "end"; "loop" with
// "DEVICE INODE SPECIAL" of what is behind the loop device, and its own SPECIAL; "read" with the SPECIAL of
// what was read, and the bytes in hexadecimal.
#include <fcntl.h>
#include <liburing.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mounts.h"
#include "sync.h"

namespace {

constexpr size_t kCommandBytes = 80;
constexpr uint32_t kExtentsPerCall = 128;
constexpr int64_t kReadBytesMax = 1 << 20;

int64_t Checked(int64_t value) { return value < 0 ? -errno : value; }

int Open(const char* path, int flags) {
  return static_cast<int>(Checked(open(path, flags | O_CLOEXEC)));
}

int64_t Command(const char* path, const char* op, std::string_view hex) {
  if (hex.size() % 2 != 0 || hex.size() > 2 * kCommandBytes) return -EINVAL;
  const int fd = Open(path, O_RDWR);
  if (fd < 0) return fd;
  io_uring ring;
  if (const int status = io_uring_queue_init(1, &ring, IORING_SETUP_SQE128); status < 0) {
    return status;
  }
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  if (sqe == nullptr) return -EBUSY;
  std::memset(static_cast<void*>(sqe), 0, 2 * sizeof *sqe);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = fd;
  sqe->cmd_op = static_cast<uint32_t>(std::strtoul(op, nullptr, 10));
  for (size_t i = 0; i < hex.size() / 2; i++) {
    const std::string digits(hex.substr(2 * i, 2));
    sqe->cmd[i] = static_cast<uint8_t>(std::strtoul(digits.c_str(), nullptr, 16));
  }
  int status = io_uring_submit(&ring);
  io_uring_cqe* cqe = nullptr;
  if (status >= 0) {
    do {
      status = io_uring_wait_cqe(&ring, &cqe);
    } while (status == -EINTR);
  }
  return status < 0 ? status : cqe->res;
}

int64_t Fsync(const char* path) {
  const int fd = Open(path, O_RDONLY);
  return fd < 0 ? fd : Checked(fsync(fd));
}

int64_t Claim(const char* path) {
  const int fd = Open(path, O_RDONLY | O_EXCL);
  return fd < 0 ? fd : Checked(close(fd));
}

int64_t Write(const char* path, std::string_view text) {
  const int fd = Open(path, O_WRONLY);
  return fd < 0 ? fd : Checked(write(fd, text.data(), text.size()));
}

int64_t Extents(const char* path, std::string& lines) {
  const int fd = Open(path, O_RDONLY);
  if (fd < 0) return fd;
  struct stat file;
  if (fstat(fd, &file) < 0) return -errno;
  lines += std::to_string(file.st_dev) + " " + std::to_string(file.st_mode) + "\n";
  if (!S_ISREG(file.st_mode)) return 0;
  std::vector<uint64_t> memory((sizeof(fiemap) + kExtentsPerCall * sizeof(fiemap_extent)) / 8);
  auto* map = reinterpret_cast<fiemap*>(memory.data());
  for (uint64_t start = 0;;) {
    std::memset(map, 0, sizeof *map);
    map->fm_start = start;
    map->fm_length = FIEMAP_MAX_OFFSET - start;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = kExtentsPerCall;
    if (ioctl(fd, FS_IOC_FIEMAP, map) < 0) return -errno;
    for (uint32_t i = 0; i < map->fm_mapped_extents; i++) {
      const fiemap_extent& extent = map->fm_extents[i];
      char line[80];
      std::snprintf(line, sizeof line, "%" PRIu64 " %" PRIu64 " %" PRIu32 "\n",
                    static_cast<uint64_t>(extent.fe_physical),
                    static_cast<uint64_t>(extent.fe_length), extent.fe_flags);
      lines += line;
      if ((extent.fe_flags & FIEMAP_EXTENT_LAST) != 0) return 0;
      start = extent.fe_logical + extent.fe_length;
    }
    if (map->fm_mapped_extents == 0) return 0;
  }
}

int64_t Stat(const char* path, std::string& lines) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path, nullptr), std::free);
  struct stat file;
  if (real == nullptr || stat(real.get(), &file) < 0) return -errno;
  lines += std::to_string(file.st_dev) + " " + std::to_string(file.st_ino) + " " +
           std::to_string(file.st_mode) + " " + std::to_string(file.st_rdev) + "\n" + real.get() +
           "\nend\n";
  return 0;
}

/** Waits for nobody who might write to the other end of a pipe. */
int64_t OpenOnly(const char* path) {
  const int fd = Open(path, O_RDONLY | O_NONBLOCK);
  return fd < 0 ? fd : Checked(close(fd));
}

/** As many bytes as there are, in one read. */
int64_t Read(const char* path, const char* at, const char* bytes, std::string& lines) {
  const int64_t length = std::atoll(bytes);
  if (length < 0 || length > kReadBytesMax) return -EINVAL;
  const int fd = Open(path, O_RDONLY | O_NONBLOCK);
  if (fd < 0) return fd;
  struct stat file;
  std::vector<uint8_t> buffer(length);
  int64_t count = fstat(fd, &file) < 0 ? -errno : 0;
  if (count == 0) count = Checked(pread(fd, buffer.data(), length, std::atoll(at)));
  close(fd);
  if (count < 0) return count;
  lines += std::to_string(file.st_rdev) + " ";
  for (int64_t i = 0; i < count; i++) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", buffer[i]);
    lines += digits;
  }
  lines += "\n";
  return count;
}

std::string Number(uint64_t device) {
  return std::to_string(major(device)) + ":" + std::to_string(minor(device));
}

/** What the file behind a loop device lies on, and what device it is; 0:0 for none. */
void Loops(const std::vector<const char*>& names, std::string& lines) {
  for (const char* name : names) {
    loop_info64 info = {};
    const int fd = Open((std::string("/dev/") + name).c_str(), O_RDONLY | O_NONBLOCK);
    if (fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) < 0) info = {};
    if (fd >= 0) close(fd);
    lines += Number(info.lo_device) + " " + Number(info.lo_rdevice) + "\n";
  }
}

int64_t Freezing(const char* path, unsigned long request) {
  const int fd = Open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  return fd < 0 ? fd : Checked(ioctl(fd, request, 0));
}

/** As fsfreeze(8) ends. */
int Freeze(std::string_view verb, const char* path) {
  const int64_t answer = Freezing(path, verb == "freeze" ? FIFREEZE : FITHAW);
  if (answer >= 0) return EXIT_SUCCESS;
  std::fprintf(stderr, "%s: %s\n", path, std::strerror(static_cast<int>(-answer)));
  return EXIT_FAILURE;
}

int64_t Loop(const char* path, std::string& lines) {
  const int fd = Open(path, O_RDONLY | O_NONBLOCK);
  if (fd < 0) return fd;
  struct stat file;
  loop_info64 info{};
  if (fstat(fd, &file) < 0 || ioctl(fd, LOOP_GET_STATUS64, &info) < 0) return -errno;
  lines += std::to_string(info.lo_device) + " " + std::to_string(info.lo_inode) + " " +
           std::to_string(info.lo_rdevice) + " " + std::to_string(file.st_rdev) + "\n";
  return 0;
}

/** Ends with the parent from now on; false when it has ended before. */
bool EndWith(const char* parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  return getppid() == std::atoi(parent);
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) return EXIT_FAILURE;
  const std::string_view verb = words[2];
  const char* path = words[3];
  if (verb == "freeze" || verb == "thaw") return Freeze(verb, path);
  if (!EndWith(words[1])) return EXIT_FAILURE;
  const std::vector<const char*> more(words + 4, words + count);
  if (verb == "reach") {
    Reach(std::atoll(path), more);
    return EXIT_SUCCESS;
  }
  std::string lines;
  int64_t answer = -EINVAL;
  if (verb == "command" && count == 6) answer = Command(path, words[4], words[5]);
  if (verb == "fsync" && count == 4) answer = Fsync(path);
  if (verb == "claim" && count == 4) answer = Claim(path);
  if (verb == "write" && count == 5) answer = Write(path, words[4]);
  if (verb == "extents" && count == 4) answer = Extents(path, lines);
  if (verb == "stat" && count == 4) answer = Stat(path, lines);
  if (verb == "open" && count == 4) answer = OpenOnly(path);
  if (verb == "unlink" && count == 4) answer = Checked(unlink(path));
  if (verb == "read" && count == 6) answer = Read(path, words[4], words[5], lines);
  if (verb == "sync") answer = Sync(std::atoll(path), more, lines);
  if (verb == "loops") {
    Loops({words + 3, words + count}, lines);
    answer = 0;
  }
  if (verb == "mounts") answer = Mounts(std::atoll(path), more, lines);
  if (verb == "loop" && count == 4) answer = Loop(path, lines);
  std::printf("%" PRId64 "\n%s", answer, lines.c_str());
}
