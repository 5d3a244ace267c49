#pragma once

/** The node is as it was; where it is suspended another program has done that, and resumes it. */
constexpr int kNotBegun = 2;

/**
 * Switches the device-mapper node MAJOR:MINOR to its table in waiting, in one system call, which freezes the file
 * system on the node, waits for what is on its way, exchanges the tables and resumes. Before that it writes back what
 * memory has of the node, for two seconds at most. What the kernel refuses is taken back: that table is dropped, and the
 * node continues with its old one. A table that another program has loaded meanwhile stays, and a node that is suspended
 * then is that program's to resume.
 *
 * It stays in memory meanwhile: where it may not, nothing is done; but for `may_page`, a node that is led back.
 *
 * Prints for how many microseconds the call lasted: its users waited for no longer.
 * @returns as the process ends: 1 where the kernel refused, kNotBegun where it was not asked
 */
int Exchange(const char* major, const char* minor, bool may_page);
