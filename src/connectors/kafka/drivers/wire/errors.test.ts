import assert from "node:assert/strict";
import { test } from "node:test";
import {
  AuthenticationError,
  NetworkError,
  protocolErrorsCodesById,
  ResponseError,
} from "@platformatic/kafka";
import { DriverError } from "../../driver.ts";
import { driverError, protocolCode, protocolError } from "./errors.ts";

const refused = (code: number) => new ResponseError(8, 9, { "/": [code, null] }, {});

test("every protocol error has a meaning; those that are not listed may be tried again", () => {
  const counts = new Map<string, number>();
  for (const id of Object.keys(protocolErrorsCodesById).map(Number)) {
    const error = protocolError(id, "x");
    if (id === 0) assert.equal(error, undefined);
    else counts.set(error!.code, (counts.get(error!.code) ?? 0) + 1);
  }
  const codes = ["access", "fenced", "invalid", "retry", "too-large", "unknown-topic", "unsupported"];
  assert.deepEqual([...counts.keys()].sort(), codes);
  assert.equal(protocolError(9_999, "x")!.code, "retry");
  assert.match(protocolError(9_999, "x")!.message, /9999/);
});

test("a refusal means the same whether a response names it or the library throws it", () => {
  for (const id of [22, 25, 27, 82, 110, 113]) {
    assert.equal(protocolError(id, "x")!.code, "fenced", String(id));
    assert.equal(driverError(refused(id)).code, "fenced", String(id));
    assert.equal(protocolCode(driverError(refused(id))), id);
    assert.equal(protocolCode(protocolError(id, "x")), id);
  }
});

test("what the broker adds to a code is told", () => {
  assert.match(
    protocolError(87, "t/0", "record 3: no key")!.message,
    /t\/0: record 3: no key \(INVALID_RECORD\)/,
  );
  const error = new ResponseError(68, 1, { "/": [112, "no such assignor"] }, {});
  assert.match(driverError(error, "broker").message, /^broker: no such assignor \(UNSUPPORTED_ASSIGNOR\)$/);
});

test("a login is refused only where the broker refused it, not where the connection was lost meanwhile", () => {
  const wrong = new NetworkError("failed", {
    cause: new AuthenticationError("SASL authentication failed.", { cause: refused(58) }),
  });
  assert.equal(driverError(wrong).code, "access");
  const forged = new NetworkError("failed", { cause: new AuthenticationError("Invalid server signature.") });
  assert.equal(driverError(forged).code, "access");
  const lost = new NetworkError("failed", {
    cause: new AuthenticationError("Cannot find a suitable SASL mechanism.", {
      cause: new NetworkError("Connection closed"),
    }),
  });
  assert.equal(driverError(lost).code, "retry");
});

test("anything thrown gives an error of the driver", () => {
  const same = new DriverError("invalid", "x");
  assert.equal(driverError(same), same);
  const circular = new Error("round") as Error & { cause: unknown };
  circular.cause = circular;
  for (const thrown of [circular, "text", null, undefined, 7, {}]) {
    assert.equal(driverError(thrown).code, "retry");
    assert.equal(protocolCode(thrown), undefined);
  }
});
