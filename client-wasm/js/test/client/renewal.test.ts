/**
 * The promise: whoever is asked for a token again gives it in time, and once; a server that is not ours is told nothing;
 * a refusal, an application that has no other token and one that fails are asked again, and not without end.
 */

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";

import { type GetToken, Renewal } from "../../src/client/renewal.js";

const MINUTE = 60_000;
const NOW = 1_700_000_000_000;

/** A token that ends so many milliseconds after the beginning of the test; its text goes by `name`. */
function token(ms: number, name = ""): string {
  const claims = JSON.stringify({ sub: `ännchen ${name}?>`, exp: (NOW + ms) / 1000 });
  return `header.${Buffer.from(claims).toString("base64url")}.signature`;
}

function start(context: TestContext, getToken: GetToken | undefined) {
  context.mock.timers.enable({ apis: ["setTimeout", "Date"], now: NOW });
  const sent: { readonly at: number; readonly token: string }[] = [];
  const renewal = new Renewal(getToken, (text) => {
    const said = JSON.parse(text) as { readonly type: string; readonly token: string };
    assert.equal(said.type, "token");
    sent.push({ at: Date.now() - NOW, token: said.token });
  });
  const tick = async (ms: number): Promise<void> => {
    const end = Date.now() + ms;
    for (let left = ms; left > 0; left = end - Date.now()) {
      context.mock.timers.tick(Math.min(left, 500));
      for (let turn = 0; turn < 6; turn += 1) await null;
    }
  };
  return { renewal, sent, tick };
}

const good = JSON.stringify({ type: "token", until: "2023-11-14T22:13:20.000Z" });
const refused = JSON.stringify({ type: "token", code: "token-expired", detail: "" });

test("a token is renewed a minute before its end, and the next one again", async (context) => {
  const tokens = [token(20 * MINUTE, "2"), token(30 * MINUTE, "3")];
  const { renewal, sent, tick } = start(context, () => tokens[sent.length]);
  renewal.opened("concord-1", token(10 * MINUTE, "1"));
  await tick(10 * MINUTE);
  assert.deepEqual(sent, [{ at: 9 * MINUTE, token: tokens[0] }]);
  assert.ok(renewal.answered(good));
  await tick(10 * MINUTE);
  assert.deepEqual(sent[1], { at: 19 * MINUTE, token: tokens[1] });
  renewal.ended();
  await tick(60 * MINUTE);
  assert.equal(sent.length, 2);
});

test("one that is short is renewed before it is over, one that is long in its time", async (context) => {
  const { renewal, sent, tick } = start(context, () => token(999 * MINUTE));
  renewal.opened("concord-1", token(MINUTE));
  await tick(MINUTE);
  assert.deepEqual(sent.map(({ at }) => at), [45_000]);
  renewal.opened("concord-1", token(300 * MINUTE, "long"));
  await tick(300 * MINUTE);
  assert.deepEqual(sent.map(({ at }) => at), [45_000, 299 * MINUTE]);
});

test("the application is asked again while there is time, and after a refusal", async (context) => {
  const same = token(2 * MINUTE, "same");
  const answers: (() => string)[] = [
    () => same,
    () => {
      throw new Error("the network is gone");
    },
    () => token(3 * MINUTE, "refused"),
  ];
  let asked = 0;
  const { renewal, sent, tick } = start(context, () => answers[Math.min(asked++, 2)]!());
  renewal.opened("concord-1", same);
  await tick(2 * MINUTE);
  assert.equal(asked, 3);
  assert.equal(sent.length, 1);
  assert.ok(sent[0]!.at < 2 * MINUTE);
  assert.ok(renewal.answered(refused));
  await tick(10 * MINUTE);
  assert.equal(asked, 3, "its end has come");
});

test("who never has another token is asked a few times", async (context) => {
  const same = token(10 * MINUTE);
  let asked = 0;
  const { renewal, sent, tick } = start(context, () => {
    asked += 1;
    return same;
  });
  renewal.opened("concord-1", same);
  await tick(20 * MINUTE);
  assert.deepEqual(sent, []);
  assert.ok(asked >= 1 && asked < 6, String(asked));
});

test("nothing is said to servers that may not know it, nor for tokens that say nothing, nor after the end", async (context) => {
  const { renewal, sent, tick } = start(context, () => token(999 * MINUTE));
  renewal.opened("storage-server-1", token(MINUTE));
  await tick(2 * MINUTE);
  for (const mute of [undefined, "opaque", "a.b.c", `a.${btoa("{}")}.c`, token(-MINUTE)]) {
    renewal.opened("concord-1", mute);
    await tick(2 * MINUTE);
  }
  renewal.opened("concord-1", token(60 * MINUTE));
  await tick(1);
  renewal.ended();
  await tick(60 * MINUTE);
  assert.deepEqual(sent, []);
  assert.equal(renewal.answered(good), false);
});

test("a token that comes when the connection is another is not sent", async (context) => {
  const given: ((token: string) => void)[] = [];
  const { renewal, sent, tick } = start(context, () => new Promise((resolve) => given.push(resolve)));
  renewal.opened("concord-1", token(2 * MINUTE, "1"));
  await tick(2 * MINUTE);
  assert.equal(given.length, 1);
  renewal.opened("concord-1", token(60 * MINUTE, "2"));
  given[0]!(token(10 * MINUTE, "late"));
  await tick(MINUTE);
  assert.deepEqual(sent, []);
});
