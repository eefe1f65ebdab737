/** Random names. */
import { randomFillSync } from "node:crypto";

/** Asking the system for randomness costs more than all the rest of making an id. */
const pool = Buffer.alloc(4096);
let used = pool.length;

/** Random text of `[a-z0-9]`, 8 bits of randomness for each byte. */
export function randomText(bytes: number): string {
  if (used + bytes > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const hex = pool.toString("hex", used, used + bytes);
  // Ids are bearer secrets: no second copy of one stays behind.
  pool.fill(0, used, used + bytes);
  used += bytes;
  return BigInt(`0x${hex}`)
    .toString(36)
    .padStart(Math.ceil((bytes * 8) / Math.log2(36)), "0");
}
