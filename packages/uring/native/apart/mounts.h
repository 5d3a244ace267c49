// File systems in all mount namespaces; src/mounts-apart.ts says what for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

/**
 * A line "PID LINE" for each file system that a mount namespace of a process of this machine has: LINE
 * is its first line of mountinfo, as the whole namespace of process PID shows it. Of those without a
 * block device only the types that are named. After `limit_ms` it ends with the line "partial".
 */
int64_t Mounts(int64_t limit_ms, const std::vector<const char*>& types, std::string& lines);

/**
 * Opens something of each file system, by its number MAJOR:MINOR: a directory or a file, through a mount
 * of any namespace, or what any process has of it. Prints a line for each, "DEVICE FD PID PLACE", where
 * FD is -1 and PLACE the reason for one that cannot be reached, then "end"; holds the descriptors until
 * its input ends.
 */
void Reach(int64_t limit_ms, const std::vector<const char*>& devices);
