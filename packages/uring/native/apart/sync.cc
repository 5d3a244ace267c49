#include "sync.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "clock.h"

namespace {

constexpr useconds_t kPollUs = 500;

/** @returns an errno, or 0 */
int SyncOne(const char* path) {
  // Of any type: opening waits for neither a pipe nor a terminal.
  const int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  struct stat file;
  if (fd < 0 || fstat(fd, &file) < 0) return errno;
  const int status = S_ISBLK(file.st_mode) ? ioctl(fd, BLKFLSBUF, 0) : syncfs(fd);
  return status < 0 ? errno : 0;
}

}  // namespace

int64_t Sync(int64_t limit_ms, const std::vector<const char*>& paths, std::string& lines) {
  const int64_t deadline_ms = NowMs() + limit_ms;
  std::vector<pid_t> children;
  for (const char* path : paths) {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      // An abandoned child must hold neither a lock of its parent's nor a pipe whose reader waits for its end.
      close_range(0, ~0U, 0);
      _exit(SyncOne(path));
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = EAGAIN << 8;
    int ended = child < 0 ? child : 0;
    while (ended == 0) {
      ended = waitpid(child, &status, WNOHANG);
      if (ended != 0) break;
      if (NowMs() >= deadline_ms) {
        status = ETIMEDOUT << 8;
        break;
      }
      usleep(kPollUs);
    }
    lines += std::to_string(WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR) + "\n";
  }
  return static_cast<int64_t>(paths.size());
}
