/** The fields of `snapshot_info --field`. */
export const SNAPSHOT_FIELDS = ["image", "front", "error_code", "nbd_uri"] as const;
