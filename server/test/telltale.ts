/** Looks for secrets in what servers write into their logs, at every level. */
import type { AppId } from "@pandapush/protocol";
import { StorageUnavailable, type Store } from "../src/storage/store.js";

/** A clientId; a JWT. Neither looks like anything else that is logged. */
const telltale = /(?<![A-Za-z0-9])[a-z0-9]{36,64}(?![A-Za-z0-9])|eyJ[\w-]+\.[\w-]+\.[\w-]*/;
/** Variables whose values are secret. */
const secretName = /SECRET|PASSWORD|TOKEN/;
/** What may be a key's secret. */
const word = /[\w+/=~.-]{12,}/g;

export class Telltale {
  private readonly words = new Set<string>();
  private readonly given: readonly string[];
  private readonly found: string[] = [];

  constructor(environment: Readonly<Record<string, string>>) {
    this.given = Object.entries(environment)
      .filter(([name, value]) => secretName.test(name) && value.length >= 8)
      .map(([, value]) => value);
  }

  read(line: string): void {
    for (const [each] of line.matchAll(word)) this.words.add(each);
    if (telltale.test(line) || this.given.some((secret) => line.includes(secret))) {
      this.found.push(line);
    }
  }

  /** @throws Error that quotes the lines which hold a secret */
  async check(store: Store): Promise<void> {
    const lines = [...this.found];
    for (const secret of await secretsOf(store)) {
      if (this.words.has(secret)) lines.push(`a key's secret: ${secret}`);
    }
    if (lines.length > 0) throw new Error(`The log gives secrets away:\n${lines.join("\n")}`);
  }
}

async function secretsOf(store: Store): Promise<string[]> {
  try {
    const { items } = await store.findApplications({});
    const found = await Promise.all(items.map(({ id }) => store.findKeys(id as AppId, {})));
    return found.flatMap((keys) => keys.items.map(({ secret }) => secret));
  } catch (error) {
    if (error instanceof StorageUnavailable) return [];
    throw error;
  }
}
