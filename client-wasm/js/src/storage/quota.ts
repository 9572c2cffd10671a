/** What the browser says of this origin's space: `navigator.storage`, which some contexts don't have. */

import type { StorageEstimate } from "./storage.js";

/** Answers by manager: Firefox asks the user, who should not be asked twice. */
const answers = new WeakMap<StorageManager, Promise<boolean>>();

/** Whether stored data is safe from eviction; asks the browser for it, once in a page's life. Never rejects. */
export function askToPersist(manager: StorageManager | undefined): Promise<boolean> {
  if (!manager) return Promise.resolve(false);
  const answer = answers.get(manager) ?? ask(manager);
  answers.set(manager, answer);
  return answer;
}

/** How full the origin is, in bytes. Never rejects. */
export async function estimate(manager: StorageManager | undefined): Promise<StorageEstimate | undefined> {
  try {
    const found = await manager?.estimate();
    return found && { usageBytes: found.usage, quotaBytes: found.quota };
  } catch {
    return undefined;
  }
}

async function ask(manager: StorageManager): Promise<boolean> {
  try {
    return (await manager.persisted()) || (await manager.persist());
  } catch {
    return false;
  }
}
