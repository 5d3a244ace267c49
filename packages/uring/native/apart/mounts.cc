#include "mounts.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <utility>

#include "clock.h"
#include "text.h"

namespace {

/** One walk to a mount point: it would never end at a dead server. */
constexpr int64_t kWalkMs = 1000;
constexpr size_t kMountsTriedMax = 8;
/** Mounts on top of the wanted one. */
constexpr int kCoversMax = 64;

/** This process's own mount namespace, which it leaves. */
int Proc() {
  static const int fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  return fd;
}

std::string ReadAll(const std::string& name) {
  std::string text;
  const int fd = openat(Proc(), name.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char part[1 << 16];
  for (ssize_t length; (length = read(fd, part, sizeof part)) > 0;) text.append(part, length);
  close(fd);
  return text;
}

template <typename Visit>
void ForEachName(const std::string& folder, Visit visit) {
  const int fd = openat(Proc(), folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  DIR* directory = fdopendir(fd);
  if (directory == nullptr) return void(close(fd));
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.' && !visit(entry->d_name)) break;
  }
  closedir(directory);
}

/** In ascending order. */
template <typename Visit>
void ForEachProcess(Visit visit) {
  const std::string own = std::to_string(getpid());
  ForEachName(".", [&](const char* name) {
    return name[0] < '0' || name[0] > '9' || name == own || visit(std::string(name));
  });
}

struct Mount {
  std::string_view line;
  std::string_view id;
  std::string_view parent;
  std::string_view device;
  /** Escapes a name like mountinfo. */
  std::string_view point;
  std::string_view type;
};

std::vector<Mount> ParseMounts(std::string_view text) {
  std::vector<Mount> mounts;
  for (const std::string_view line : Split(text, '\n')) {
    const std::vector<std::string_view> left = Split(line, ' ');
    const size_t right = line.find(" - ");
    if (left.size() < 6 || right == std::string_view::npos) continue;
    const std::string_view type = Split(line.substr(right + 3), ' ')[0];
    mounts.push_back({line, left[0], left[1], left[2], left[4], type});
  }
  return mounts;
}

std::string Unescaped(std::string_view field) {
  std::string text;
  for (size_t i = 0; i < field.size(); i++) {
    if (field[i] == '\\' && i + 3 < field.size()) {
      text += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 +
                                (field[i + 3] - '0'));
      i += 3;
    } else {
      text += field[i];
    }
  }
  return text;
}

/** Enters the mount namespace of a process, including the namespace's root. */
bool Enter(const std::string& pid) {
  const int fd = openat(Proc(), (pid + "/ns/mnt").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool entered = setns(fd, CLONE_NEWNS) == 0;
  close(fd);
  return entered;
}

/** Each namespace once, that of process 1 first. False: the time ended before all were seen. */
template <typename Visit>
bool ForEachNamespace(int64_t deadline_ms, Visit visit) {
  std::set<std::string> seen;
  bool in_time = true;
  ForEachProcess([&](const std::string& pid) {
    char name[64];
    const ssize_t length = readlinkat(Proc(), (pid + "/ns/mnt").c_str(), name, sizeof name);
    if (length <= 0 || !seen.emplace(name, length).second) return true;
    in_time = NowMs() < deadline_ms;
    if (in_time && Enter(pid)) visit(pid, ReadAll("self/mountinfo"));
    return in_time;
  });
  return in_time;
}

struct Status {
  std::string device;
  bool usable;
};

/** Only facts that the kernel knows without asking a server. */
Status StatusOf(int folder, const char* name, int flags) {
  struct statx found;
  std::memset(&found, 0, sizeof found);
  const int how = flags | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT;
  if (statx(folder, name, how, STATX_TYPE, &found) < 0) return {"", false};
  return {std::to_string(found.stx_dev_major) + ":" + std::to_string(found.stx_dev_minor),
          S_ISDIR(found.stx_mode) || S_ISREG(found.stx_mode)};
}

/** Does not query the file system: one that an error has shut down answers nothing. */
bool LiesOn(int fd, std::string_view mount) {
  const std::string text = ReadAll("self/fdinfo/" + std::to_string(fd));
  const size_t at = text.find("mnt_id:\t");
  if (at == std::string::npos) return false;
  const size_t start = at + std::strlen("mnt_id:\t");
  return text.substr(start, text.find('\n', start) - start) == mount;
}

int OpenPlace(const std::string& path) { return open(path.c_str(), O_PATH | O_CLOEXEC); }

bool LiesAtOrBelow(std::string_view path, std::string_view above) {
  if (!path.starts_with(above)) return false;
  return path.size() == above.size() || above == "/" || path[above.size()] == '/';
}

/**
 * A mount that others hide. They are detached in a copy of the namespace that no other process sees, and that ends
 * with this process.
 */
int OpenCovered(std::string_view device, std::string_view point) {
  if (unshare(CLONE_NEWNS) < 0) return -errno;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return -errno;
  std::set<std::string, std::less<>> tried;
  for (int round = 0; round < kCoversMax; round++) {
    const std::string text = ReadAll("self/mountinfo");
    const std::vector<Mount> mounts = ParseMounts(text);
    const auto wanted = std::find_if(mounts.begin(), mounts.end(), [&](const Mount& one) {
      return one.device == device && one.point == point;
    });
    if (wanted == mounts.end()) return -ENOENT;
    const int fd = OpenPlace(Unescaped(point));
    if (fd >= 0 && LiesOn(fd, wanted->id)) return fd;
    if (fd >= 0) close(fd);
    std::set<std::string_view> chain;
    for (auto at = wanted; at != mounts.end() && chain.insert(at->id).second;) {
      const std::string_view parent = at->parent;
      at = std::find_if(mounts.begin(), mounts.end(),
                        [&](const Mount& one) { return one.id == parent; });
    }
    const auto cover = std::find_if(mounts.rbegin(), mounts.rend(), [&](const Mount& one) {
      return chain.count(one.id) == 0 && LiesAtOrBelow(point, one.point) &&
             tried.count(one.id) == 0;
    });
    if (cover == mounts.rend()) return -ENOENT;
    tried.emplace(cover->id);
    umount2(Unescaped(cover->point).c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  }
  return -ENOENT;
}

/** A mount that may lead to a file system. */
struct Way {
  std::string pid;
  std::string id;
  std::string device;
  std::string point;
};

int OpenWay(const Way& way) {
  if (!Enter(way.pid)) return -errno;
  const int fd = OpenPlace(Unescaped(way.point));
  if (fd >= 0 && LiesOn(fd, way.id)) return fd;
  if (fd >= 0) close(fd);
  return OpenCovered(way.device, way.point);
}

void Send(int socket, int fd) {
  int status = fd < 0 ? fd : 0;
  iovec part = {&status, sizeof status};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  sendmsg(socket, &message, 0);
}

int Receive(int socket) {
  int status = 0;
  iovec part = {&status, sizeof status};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof status)];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != sizeof status) return -ECHILD;
  if (status < 0) return status;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return -EMFILE;
  int fd;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

/** Walks in a separate process, which may never return. @returns a descriptor, or a negative errno */
int OpenInTime(const Way& way, int64_t deadline_ms) {
  const int64_t limit_ms = std::min(kWalkMs, deadline_ms - NowMs());
  if (limit_ms <= 0) return -ETIMEDOUT;
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) return -errno;
  const pid_t walker = fork();
  if (walker == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Send(sockets[1], OpenWay(way));
    _exit(0);
  }
  close(sockets[1]);
  pollfd wait = {sockets[0], POLLIN, 0};
  int answer = walker < 0 ? -EAGAIN : -ETIMEDOUT;
  if (walker > 0 && poll(&wait, 1, static_cast<int>(limit_ms)) > 0) answer = Receive(sockets[0]);
  close(sockets[0]);
  if (walker > 0) {
    kill(walker, SIGKILL);
    // Does not wait for one that hangs.
    waitpid(walker, nullptr, answer == -ETIMEDOUT ? WNOHANG : 0);
  }
  return answer;
}

/** A wanted file system. */
struct Wanted {
  std::string device;
  std::vector<Way> ways;
  int fd = -1;
  std::string pid = "0";
  std::string place = "it is neither mounted nor open";
};

void Tell(const Wanted& one) {
  std::printf("%s %d %s %s\n", one.device.c_str(), one.fd, one.pid.c_str(), one.place.c_str());
}

bool IsMissing(const Wanted& one) { return one.fd < 0; }

void FindWays(std::vector<Wanted>& wanted, int64_t deadline_ms) {
  ForEachNamespace(deadline_ms, [&](const std::string& pid, const std::string& text) {
    for (const Mount& mount : ParseMounts(text)) {
      for (Wanted& one : wanted) {
        if (one.device != mount.device || one.ways.size() == kMountsTriedMax) continue;
        one.ways.push_back({pid, std::string(mount.id), one.device, std::string(mount.point)});
      }
    }
  });
}

void OpenWays(Wanted& one, int64_t deadline_ms) {
  for (const Way& way : one.ways) {
    const int fd = OpenInTime(way, deadline_ms);
    if (fd < 0) {
      one.place = std::string(strerrorname_np(-fd)) + " at " + way.point;
      continue;
    }
    one.fd = fd;
    one.pid = way.pid;
    one.place = way.point;
    return;
  }
}

/** Uses the target of a link in /proc, if it is on one of them. */
void TryLink(std::vector<Wanted>& wanted, const std::string& pid, const std::string& link) {
  const Status status = StatusOf(Proc(), link.c_str(), 0);
  if (!status.usable) return;
  for (Wanted& one : wanted) {
    if (!IsMissing(one) || one.device != status.device) continue;
    const int fd = openat(Proc(), link.c_str(), O_PATH | O_CLOEXEC);
    if (fd < 0) continue;
    // The process may have opened something else meanwhile.
    if (StatusOf(fd, "", AT_EMPTY_PATH).device != one.device) {
      close(fd);
      continue;
    }
    one.fd = fd;
    one.pid = pid;
    one.place = "/proc/" + link;
  }
}

void TryMaps(std::vector<Wanted>& wanted, const std::string& pid) {
  const std::string text = ReadAll(pid + "/maps");
  for (const std::string_view line : Split(text, '\n')) {
    const std::vector<std::string_view> fields = Split(line, ' ');
    unsigned major;
    unsigned minor;
    if (fields.size() < 5) continue;
    if (std::sscanf(std::string(fields[3]).c_str(), "%x:%x", &major, &minor) != 2) continue;
    const std::string device = std::to_string(major) + ":" + std::to_string(minor);
    const bool is_wanted = std::any_of(wanted.begin(), wanted.end(), [&](const Wanted& one) {
      return IsMissing(one) && one.device == device;
    });
    if (!is_wanted) continue;
    unsigned long start;
    unsigned long end;
    std::sscanf(std::string(fields[0]).c_str(), "%lx-%lx", &start, &end);
    char name[64];
    std::snprintf(name, sizeof name, "/map_files/%lx-%lx", start, end);
    TryLink(wanted, pid, pid + name);
  }
}

bool AnyMissing(const std::vector<Wanted>& wanted) {
  return std::any_of(wanted.begin(), wanted.end(), IsMissing);
}

void SearchProcesses(std::vector<Wanted>& wanted, int64_t deadline_ms) {
  const auto go_on = [&] { return AnyMissing(wanted) && NowMs() < deadline_ms; };
  ForEachProcess([&](const std::string& pid) {
    for (const char* name : {"/cwd", "/root", "/exe"}) TryLink(wanted, pid, pid + name);
    ForEachName(pid + "/fd", [&](const char* name) {
      TryLink(wanted, pid, pid + "/fd/" + name);
      return go_on();
    });
    return go_on();
  });
  // Last: this waits for processes that change their memory.
  if (!go_on()) return;
  ForEachProcess([&](const std::string& pid) {
    TryMaps(wanted, pid);
    return go_on();
  });
}

}  // namespace

int64_t Mounts(int64_t limit_ms, const std::vector<const char*>& types, std::string& lines) {
  std::set<std::string, std::less<>> seen;
  const bool all = ForEachNamespace(
      NowMs() + limit_ms, [&](const std::string& pid, const std::string& text) {
        for (const Mount& mount : ParseMounts(text)) {
          const bool on_block = !mount.device.starts_with("0:");
          if (!on_block && std::find(types.begin(), types.end(), mount.type) == types.end()) continue;
          if (!seen.emplace(mount.device).second) continue;
          lines += pid + " ";
          lines += mount.line;
          lines += "\n";
        }
      });
  if (!all) lines += "partial\n";
  return static_cast<int64_t>(seen.size());
}

void Reach(int64_t limit_ms, const std::vector<const char*>& devices) {
  const int64_t deadline_ms = NowMs() + limit_ms;
  std::vector<Wanted> wanted;
  for (const char* device : devices) {
    wanted.emplace_back();
    wanted.back().device = device;
  }
  FindWays(wanted, deadline_ms);
  for (Wanted& one : wanted) OpenWays(one, deadline_ms);
  if (AnyMissing(wanted)) SearchProcesses(wanted, deadline_ms);
  for (const Wanted& one : wanted) Tell(one);
  std::printf("end\n");
  std::fflush(stdout);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
}
