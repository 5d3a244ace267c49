/** A UUID: of one diff area, and of no other at any time. Its bytes are in maps and journals. */
export type AreaId = string;
