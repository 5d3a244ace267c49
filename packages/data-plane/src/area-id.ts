/** A UUID that identifies one diff area for all time. Its bytes are in maps and journals. */
export type AreaId = string;
