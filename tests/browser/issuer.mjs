// Whoever makes the tokens that a server of the tests believes.

import { generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export class Issuer {
  #directory = mkdtempSync(join(tmpdir(), "concord-issuer-"));
  #key;

  constructor() {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    this.#key = privateKey;
    writeFileSync(join(this.#directory, "keys.pem"), publicKey.export({ type: "spki", format: "pem" }));
  }

  /** What tells a server to believe it. */
  get arguments() {
    return ["--auth", "jwt", "--auth-keys", join(this.#directory, "keys.pem"), "--auth-leeway-seconds", "0"];
  }

  /** A principal's token for some seconds, like no other. */
  token(sub, seconds = 3600) {
    const claims = { sub, exp: Math.floor(Date.now() / 1000) + seconds, jti: String(Math.random()) };
    const signed = `${part({ alg: "EdDSA" })}.${part(claims)}`;
    return `${signed}.${sign(null, Buffer.from(signed), this.#key).toString("base64url")}`;
  }

  stop() {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
