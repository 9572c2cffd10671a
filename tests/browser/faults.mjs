// What the tests of faults share: a server that is up at the beginning of each, and short ways to see how a tab fares.

import { afterEach, beforeEach } from "node:test";

import { stage, until } from "./harness.mjs";

/** {@link stage}, with `browserWith`: a browser in which `init` runs before each page, which ends with the test. */
export function stageFaults(take) {
  let server, browser;
  async function browserWith(init) {
    const context = await browser.newContext();
    if (init !== undefined) {
      await context.addInitScript(init);
    }
    return context;
  }
  stage((parts) => {
    ({ server, browser } = parts);
    take({ ...parts, browserWith });
  });
  // A test that failed may have left it down.
  beforeEach(async () => {
    if (!server.isUp) {
      await server.restart();
    }
  });
  afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));
}

export const put = (tab, key, value) =>
  tab.evaluate(([key, value]) => window.doc.change((draft) => void (draft[key] = value)), [key, value]);

export const status = (tab) =>
  tab.evaluate(() => {
    const { error, ...rest } = window.doc.status;
    return { ...rest, error: error?.message, fault: error?.fault };
  });

export const shows = (tab, value) =>
  until(tab, (value) => Object.entries(value).every(([key, one]) => JSON.stringify(window.doc.value[key]) === JSON.stringify(one)), value);
