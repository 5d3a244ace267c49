// The program behind src/apart-process.ts, which says what it is for.
//
//   uring-apart PARENT serve-locked          the same as serve, and stays in memory as far as it may
//   uring-apart PARENT serve                 makes one call after the other, as its input asks for them:
//     command PATH OP HEX                    an IORING_OP_URING_CMD with up to 80 bytes
//     fsync PATH
//     claim PATH                             opens it exclusively, and closes it
//     write PATH TEXT
//     extents PATH                           FIEMAP with FIEMAP_FLAG_SYNC
//     stat PATH
//     open PATH                              opens it for reading, and closes it
//     unlink PATH
//     read PATH AT BYTES                     read(2) from some byte on
//     loops PATH...                          LOOP_GET_STATUS64 of each
//     holes PATH MS                          holes.h says what it prints
//     dm-table MAJOR MINOR live|waiting      mapper.h says what these three do
//     dm-clear MAJOR MINOR TABLE
//     dm-resume MAJOR MINOR
//
// Calls that change the process, by a namespace or children, are all that it does:
//
//   uring-apart PARENT sync MS PATH...       sync.h, and mounts.h, say what these three print
//   uring-apart PARENT mounts MS TYPE...
//   uring-apart PARENT reach MS DEVICE...
//   uring-apart 0 freeze PATH                FIFREEZE and FITHAW; affects no process but itself when it ends
//   uring-apart 0 thaw PATH
//   uring-apart 0 exchange MAJOR MINOR       exchange.h
// uring-apart 0 return MAJOR MINOR         the same, even if it cannot be locked in memory
//
// PARENT is the id of the calling process. A call that its parent did not live to see begin is not made: it may be
// about a device whose number another one has by now. During a call its name is "apart:" and the verb, as in ps.
//
//   a request    COUNT \0 WORD \0 ...        as many words as COUNT says, in decimal
//   an answer    LENGTH \n TEXT              as many bytes of text
//
// The first line of the text is what the call answered, or a negative errno. "extents" continues with
// "DEVICE MODE" of the file, and for each extent "PHYSICAL LENGTH FLAGS"; "stat" with
// "DEVICE INODE MODE SPECIAL", the path without symbolic links, and "end"; "loops" with a line for each:
// "DEVICE INODE SPECIAL" of what is behind the loop device, and its own SPECIAL, or a negative errno; "read"
// with the SPECIAL of what was read, and the bytes in hexadecimal; "dm-table" with the table.
#include <fcntl.h>
#include <liburing.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
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

#include "exchange.h"
#include "file.h"
#include "holes.h"
#include "mapper.h"
#include "mounts.h"
#include "sync.h"

namespace {

constexpr size_t kCommandBytes = 80;
constexpr uint32_t kExtentsPerCall = 128;
constexpr int64_t kReadBytesMax = 1 << 20;

/** Waits for the completion of the ring's only entry. */
int64_t Submitted(io_uring* ring) {
  int status = io_uring_submit(ring);
  if (status < 0) return status;
  io_uring_cqe* cqe = nullptr;
  do {
    status = io_uring_wait_cqe(ring, &cqe);
  } while (status == -EINTR);
  return status < 0 ? status : cqe->res;
}

int64_t Command(const char* path, const char* op, std::string_view hex) {
  if (hex.size() % 2 != 0 || hex.size() > 2 * kCommandBytes) return -EINVAL;
  const File file(path, O_RDWR);
  if (file < 0) return file;
  io_uring ring;
  if (const int status = io_uring_queue_init(1, &ring, IORING_SETUP_SQE128); status < 0) {
    return status;
  }
  const std::unique_ptr<io_uring, decltype(&io_uring_queue_exit)> owned(&ring,
                                                                        io_uring_queue_exit);
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  if (sqe == nullptr) return -EBUSY;
  std::memset(static_cast<void*>(sqe), 0, 2 * sizeof *sqe);
  sqe->opcode = IORING_OP_URING_CMD;
  sqe->fd = file;
  sqe->cmd_op = static_cast<uint32_t>(std::strtoul(op, nullptr, 10));
  for (size_t i = 0; i < hex.size() / 2; i++) {
    const std::string digits(hex.substr(2 * i, 2));
    sqe->cmd[i] = static_cast<uint8_t>(std::strtoul(digits.c_str(), nullptr, 16));
  }
  return Submitted(&ring);
}

int64_t Fsync(const char* path) {
  const File file(path, O_RDONLY);
  return file < 0 ? file : Checked(fsync(file));
}

int64_t Claim(const char* path) {
  const File file(path, O_RDONLY | O_EXCL);
  return file < 0 ? file : 0;
}

int64_t Write(const char* path, std::string_view text) {
  const File file(path, O_WRONLY);
  return file < 0 ? file : Checked(write(file, text.data(), text.size()));
}

int64_t Extents(const char* path, std::string& lines) {
  const File file(path, O_RDONLY);
  if (file < 0) return file;
  struct stat found;
  if (fstat(file, &found) < 0) return -errno;
  lines += std::to_string(found.st_dev) + " " + std::to_string(found.st_mode) + "\n";
  if (!S_ISREG(found.st_mode)) return 0;
  std::vector<uint64_t> memory((sizeof(fiemap) + kExtentsPerCall * sizeof(fiemap_extent)) / 8);
  auto* map = reinterpret_cast<fiemap*>(memory.data());
  for (uint64_t start = 0;;) {
    std::memset(map, 0, sizeof *map);
    map->fm_start = start;
    map->fm_length = FIEMAP_MAX_OFFSET - start;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = kExtentsPerCall;
    if (ioctl(file, FS_IOC_FIEMAP, map) < 0) return -errno;
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

/** Does not wait for a writer to a pipe. */
int64_t OpenOnly(const char* path) {
  const File file(path, O_RDONLY | O_NONBLOCK);
  return file < 0 ? file : 0;
}

/** The available bytes, in one read. */
int64_t Read(const char* path, const std::string& at, const std::string& bytes,
             std::string& lines) {
  const int64_t length = std::atoll(bytes.c_str());
  if (length < 0 || length > kReadBytesMax) return -EINVAL;
  const File file(path, O_RDONLY | O_NONBLOCK);
  if (file < 0) return file;
  struct stat found;
  std::vector<uint8_t> buffer(length);
  if (fstat(file, &found) < 0) return -errno;
  const int64_t count = Checked(pread(file, buffer.data(), length, std::atoll(at.c_str())));
  if (count < 0) return count;
  lines += std::to_string(found.st_rdev) + " ";
  for (int64_t i = 0; i < count; i++) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", buffer[i]);
    lines += digits;
  }
  lines += "\n";
  return count;
}

std::string LoopLine(const char* path) {
  const File file(path, O_RDONLY | O_NONBLOCK);
  if (file < 0) return std::to_string(file);
  struct stat found;
  loop_info64 info{};
  if (fstat(file, &found) < 0 || ioctl(file, LOOP_GET_STATUS64, &info) < 0) {
    return std::to_string(-errno);
  }
  return std::to_string(info.lo_device) + " " + std::to_string(info.lo_inode) + " " +
         std::to_string(info.lo_rdevice) + " " + std::to_string(found.st_rdev);
}

int64_t Loops(const std::vector<std::string>& words, std::string& lines) {
  for (size_t i = 1; i < words.size(); i++) lines += LoopLine(words[i].c_str()) + "\n";
  return 0;
}

int64_t Freezing(const char* path, unsigned long request) {
  const File file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  return file < 0 ? file : Checked(ioctl(file, request, 0));
}

/** Exit status of fsfreeze(8). */
int Freeze(std::string_view verb, const char* path) {
  const int64_t answer = Freezing(path, verb == "freeze" ? FIFREEZE : FITHAW);
  if (answer >= 0) return EXIT_SUCCESS;
  std::fprintf(stderr, "%s: %s\n", path, std::strerror(static_cast<int>(-answer)));
  return EXIT_FAILURE;
}

/** Whether the parent lives. */
bool LivesWith(const char* parent) { return getppid() == std::atoi(parent); }

/** One word of a request; false at the end of the input. */
bool ReadWord(std::string& word) {
  char* text = nullptr;
  size_t size = 0;
  const ssize_t length = getdelim(&text, &size, '\0', stdin);
  if (length > 0 && text[length - 1] == '\0') word.assign(text, length - 1);
  const bool whole = length > 0 && text[length - 1] == '\0';
  std::free(text);
  return whole;
}

bool ReadRequest(std::vector<std::string>& words) {
  std::string word;
  if (!ReadWord(word)) return false;
  words.clear();
  for (long left = std::atol(word.c_str()); left > 0; left--) {
    if (!ReadWord(word)) return false;
    words.push_back(word);
  }
  return true;
}

/** Of the device mapper. @returns as Call() */
int64_t CallMapper(const std::vector<std::string>& words, std::string& lines) {
  if (words.size() < 3) return -EINVAL;
  const dev_t node = NodeOf(words[1].c_str(), words[2].c_str());
  const Mapper mapper;
  if (words[0] == "dm-table" && words.size() == 4) {
    return mapper.Table(node, words[3] == "waiting", lines);
  }
  if (words[0] == "dm-clear" && words.size() == 4) return mapper.Clear(node, words[3]);
  if (words[0] == "dm-resume" && words.size() == 3) return mapper.Resume(node);
  return -EINVAL;
}

/** Makes a call. @returns its result, or a negative errno */
int64_t Call(const std::vector<std::string>& words, std::string& lines) {
  const size_t count = words.size();
  const std::string verb = count == 0 ? "" : words[0];
  if (verb == "loops") return Loops(words, lines);
  if (verb.starts_with("dm-")) return CallMapper(words, lines);
  if (count < 2) return -EINVAL;
  const char* path = words[1].c_str();
  if (verb == "command" && count == 4) return Command(path, words[2].c_str(), words[3]);
  if (verb == "read" && count == 4) return Read(path, words[2], words[3], lines);
  if (verb == "write" && count == 3) return Write(path, words[2]);
  if (verb == "holes" && count == 3) return Holes(path, std::atoll(words[2].c_str()), lines);
  if (count != 2) return -EINVAL;
  if (verb == "fsync") return Fsync(path);
  if (verb == "claim") return Claim(path);
  if (verb == "extents") return Extents(path, lines);
  if (verb == "stat") return Stat(path, lines);
  if (verb == "open") return OpenOnly(path);
  if (verb == "unlink") return Checked(unlink(path));
  return -EINVAL;
}

void Serve(const char* parent) {
  std::vector<std::string> words;
  while (ReadRequest(words) && LivesWith(parent)) {
    prctl(PR_SET_NAME, ("apart:" + (words.empty() ? "" : words[0])).c_str());
    std::string lines;
    const std::string answer = std::to_string(Call(words, lines)) + "\n";
    prctl(PR_SET_NAME, "apart");
    // The length is written at once: its reader relies on that.
    std::printf("%zu\n%s", answer.size() + lines.size(), answer.c_str());
    std::fwrite(lines.data(), 1, lines.size(), stdout);
    if (std::fflush(stdout) != 0) return;
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 3) return EXIT_FAILURE;
  const std::string_view verb = words[2];
  if (count == 4 && (verb == "freeze" || verb == "thaw")) return Freeze(verb, words[3]);
  if (count == 5 && (verb == "exchange" || verb == "return"))
    return Exchange(words[3], words[4], verb == "return");
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!LivesWith(words[1])) return EXIT_FAILURE;
  if (verb == "serve-locked") StayInMemory();
  if (verb == "serve" || verb == "serve-locked") {
    Serve(words[1]);
    return EXIT_SUCCESS;
  }
  if (count < 4) return EXIT_FAILURE;
  const int64_t limit_ms = std::atoll(words[3]);
  const std::vector<const char*> names(words + 4, words + count);
  if (verb == "reach") {
    Reach(limit_ms, names);
    return EXIT_SUCCESS;
  }
  std::string lines;
  int64_t answer = -EINVAL;
  if (verb == "sync") answer = Sync(limit_ms, names, lines);
  if (verb == "mounts") answer = Mounts(limit_ms, names, lines);
  std::printf("%" PRId64 "\n%s", answer, lines.c_str());
}
