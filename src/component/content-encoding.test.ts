import assert from "node:assert/strict";
import { test } from "node:test";
import type { Headers } from "../message/records.ts";
import { codingsOf, encodedWith, mediaTypeOf, withCodings } from "./content-encoding.ts";

test("codings are read as HTTP has them: a list, several headers, any case, text or bytes", () => {
  const read = (...headers: Headers) => codingsOf(headers);
  assert.deepEqual(read(), []);
  assert.deepEqual(read(["content-encoding", "gzip"]), ["gzip"]);
  assert.deepEqual(read(["Content-Encoding", Buffer.from("GZip")]), ["gzip"]);
  assert.deepEqual(read(["content-encoding", "gzip, zstd"], ["x", "y"], ["content-encoding", "lz4"]), [
    "gzip",
    "zstd",
    "lz4",
  ]);
  assert.deepEqual(read(["content-encoding", "br"]), ["br"]);
});

test("what asks for nothing to be undone is no coding", () => {
  for (const value of [null, "", " ", "identity", "none", "utf-8", "UTF-8", "binary", "us-ascii"]) {
    assert.deepEqual(codingsOf([["content-encoding", value]]), [], String(value));
  }
  assert.deepEqual(codingsOf([["content-encoding", "utf-8, gzip"]]), ["gzip"]);
});

test("a codec comes after those before it, in one header, and the others stay", () => {
  assert.deepEqual(encodedWith([], "zstd"), [["content-encoding", "zstd"]]);
  assert.deepEqual(encodedWith([["a", "1"]], "none"), [["a", "1"]]);
  const headers: Headers = [
    ["Content-Encoding", "gzip"],
    ["a", "1"],
    ["a", "2"],
  ];
  assert.deepEqual(encodedWith(headers, "zstd"), [
    ["a", "1"],
    ["a", "2"],
    ["content-encoding", "gzip, zstd"],
  ]);
  assert.deepEqual(withCodings(headers, []), [
    ["a", "1"],
    ["a", "2"],
  ]);
});

test("the media type is read without its parameters", () => {
  assert.equal(mediaTypeOf([]), "");
  assert.equal(mediaTypeOf([["Content-Type", "Application/JSON; charset=utf-8"]]), "application/json");
  assert.equal(
    mediaTypeOf([
      ["content-type", "text/plain"],
      ["content-type", Buffer.from("text/csv")],
    ]),
    "text/csv",
  );
});
