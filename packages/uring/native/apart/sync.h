#pragma once

#include <cstdint>
#include <string>
#include <vector>

/**
 * Writes back what the page cache has of each path's file system, all at once: syncfs(2), or BLKFLSBUF for
 * a block device and the file system on it, wherever that is mounted. A line for each: 0, or a negative
 * errno, -ETIMEDOUT for one that has not ended in time.
 */
int64_t Sync(int64_t limit_ms, const std::vector<const char*>& paths, std::string& lines);
