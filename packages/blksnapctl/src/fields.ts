/** What `snapshot_info --field` can print alone. */
export const SNAPSHOT_FIELDS = ["image", "front", "error_code", "nbd_uri"] as const;
