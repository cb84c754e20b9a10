import { MillraceError } from "millrace";
import { SaxesParser, type SaxesTagNS } from "saxes";

/** Deeper documents cost stack and time in whatever reads them. CDA needs some 30 levels. */
const deepest = 100;
/** A document of many empty elements is small and becomes large: 8 MiB could hold two million. */
const mostElements = 500_000;

export interface Element {
  readonly uri: string;
  readonly local: string;
  /** Value of an attribute without a namespace; "" when it is not there. */
  attribute(name: string): string;
}

export interface Handlers {
  open(element: Element): void;
  text(text: string): void;
  close(): void;
}

/**
 * Reads XML and tells of its elements. saxes is strict: what is not well-formed, or uses a prefix that is not
 * declared, is refused at its place. It knows the five entities of XML and no others, and a document type is refused
 * before anything in it could be used: so there is nothing to expand, and no file or address to be fetched.
 *
 * Throws a business error. Its text names places in the document and never quotes it.
 */
export function readXml(xml: string, handlers: Handlers): void {
  const parser = new SaxesParser({ xmlns: true });
  let depth = 0;
  let elements = 0;
  const refuse = (what: string): never => {
    throw new MillraceError(
      "rule-broken",
      `the XML is refused at line ${parser.line}, column ${parser.column}: ${what}`,
    );
  };
  parser.on("error", ({ message }) => refuse(withoutQuotes(message)));
  parser.on("xmldecl", ({ encoding }) => {
    // The bytes were read as UTF-8, and were that.
    if (encoding !== undefined && !/^(utf-?8|us-ascii)$/i.test(encoding)) refuse("it says it is not UTF-8");
  });
  parser.on("doctype", () => refuse("it has a document type"));
  parser.on("opentag", (tag) => {
    if (++depth > deepest) refuse(`it is nested deeper than ${deepest} levels`);
    if (++elements > mostElements) refuse(`it has more than ${mostElements} elements`);
    handlers.open(elementOf(tag));
  });
  parser.on("text", (text) => handlers.text(text));
  parser.on("cdata", (text) => handlers.text(text));
  parser.on("closetag", () => {
    depth--;
    handlers.close();
  });
  parser.write(xml).close();
}

function elementOf({ uri, local, attributes }: SaxesTagNS): Element {
  return {
    uri,
    local,
    attribute: (name) => (attributes[name]?.uri === "" ? attributes[name].value : ""),
  };
}

/** The parser's messages begin with the place, and may quote the document. */
function withoutQuotes(message: string): string {
  const text = message.replace(/^(?:[^:]*:)?\d+:\d+: /, "");
  return /^[a-z ]+/i.exec(text)?.[0].trim() || "it is not well-formed";
}

export type Content = Xml | string | undefined | readonly Content[];

/** A piece of XML, safe to be put into another. */
export class Xml {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** An element with attributes and content; what is undefined is left out. All text is escaped. */
export function element(
  name: string,
  attributes: Readonly<Record<string, string | undefined>> = {},
  ...content: readonly Content[]
): Xml {
  const given = Object.entries(attributes)
    .map(([attribute, value]) => (value === undefined ? "" : ` ${attribute}="${escaped(value)}"`))
    .join("");
  const inner = content.map(textOf).join("");
  return new Xml(inner === "" ? `<${name}${given}/>` : `<${name}${given}>${inner}</${name}>`);
}

function textOf(content: Content): string {
  if (content === undefined) return "";
  if (content instanceof Xml) return content.text;
  return typeof content === "string" ? escaped(content) : content.map(textOf).join("");
}

const special: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "\t": "&#9;",
  "\n": "&#10;",
  "\r": "&#13;",
};

function escaped(text: string): string {
  // XML 1.0 has no way to write the other control characters, nor half a surrogate pair.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (!text.isWellFormed() || /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/.test(text)) {
    throw new MillraceError("rule-broken", "a text holds a character that XML cannot carry");
  }
  return text.replaceAll(/[&<>"\t\n\r]/g, (character) => special[character]!);
}
