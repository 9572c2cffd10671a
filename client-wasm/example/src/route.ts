/** The address: `#document`, `#document/company` or `#document/company/meeting`. */
import { useSyncExternalStore } from "react";

export interface Route {
  readonly document: string;
  readonly company: string | undefined;
  readonly meeting: string | undefined;
}

/** What the page's address names; nothing if it names no document. */
export function useRoute(): Route | undefined {
  const hash = useSyncExternalStore(listen, () => location.hash);
  return parse(hash);
}

export function address(document: string, company?: string, meeting?: string): string {
  return `#${[document, company, meeting].filter((part) => part !== undefined).join("/")}`;
}

/** Shows another place; the way back leads here. */
export function go(hash: string): void {
  location.hash = hash;
}

/** As if the page had been opened there. */
export function replace(hash: string): void {
  const { href } = new URL(hash, location.href);
  history.replaceState(undefined, "", href);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

function parse(hash: string): Route | undefined {
  const [document, company, meeting] = decodeURIComponent(hash.slice(1)).split("/");
  if (document === undefined || document === "") {
    return undefined;
  }
  return { document: document.replace(/^automerge:/, ""), company: company || undefined, meeting: meeting || undefined };
}

function listen(changed: () => void): () => void {
  addEventListener("hashchange", changed);
  return () => removeEventListener("hashchange", changed);
}
