import { MillraceError } from "millrace";
import { loinc } from "./code-systems.ts";
import { type Element, readXml } from "./xml.ts";

/** What is kept of a clinical document. Texts are as written; "" is what the document does not say. */
export interface ClinicalDocument {
  readonly root: string;
  readonly extension: string;
  readonly code: string;
  readonly title: string;
  readonly effectiveTime: string;
  readonly patient: Patient;
  readonly sections: readonly Section[];
  readonly acts: readonly Act[];
}

export interface Patient {
  readonly root: string;
  readonly extension: string;
  readonly given: string;
  readonly family: string;
  readonly gender: string;
  readonly birthTime: string;
}

export interface Section {
  readonly code: string;
  readonly title: string;
}

/** An act of the reference information model: an observation, a procedure, an encounter… */
export interface Act {
  /** Place of its section among the document's, from 0; −1 outside of any. */
  readonly section: number;
  readonly kind: string;
  readonly classCode: string;
  readonly moodCode: string;
  readonly code: string;
  readonly codeSystem: string;
  readonly displayName: string;
  readonly effectiveTime: string;
  readonly value: string;
  readonly unit: string;
}

type Open<T> = { -readonly [K in keyof T]: T[K] };

const hl7 = "urn:hl7-org:v3";
const acts = new Set([
  "act",
  "encounter",
  "observation",
  "organizer",
  "procedure",
  "substanceAdministration",
  "supply",
]);

/**
 * Reads a CDA R2 document. Throws a business error where it is not XML that may be read, not such a document, lacks
 * what every one must have, or names its kind in another code system than LOINC.
 */
export function readClinicalDocument(xml: string): ClinicalDocument {
  const reader = new Reader();
  readXml(xml, reader);
  return reader.finish();
}

class Reader {
  readonly #path: string[] = [];
  readonly #sections: Open<Section>[] = [];
  readonly #acts: Open<Act>[] = [];
  /** Open sections and acts: index and depth of their elements. */
  readonly #inSection: { readonly index: number; readonly depth: number }[] = [];
  readonly #inAct: { readonly act: Open<Act>; readonly depth: number }[] = [];
  #id: Element | undefined;
  #code: Element | undefined;
  #effectiveTime = "";
  #title = "";
  #patient: Open<Patient> | undefined;
  #text = "";

  open(element: Element): void {
    const { local, uri } = element;
    if (this.#path.length === 0 && (local !== "ClinicalDocument" || uri !== hl7)) {
      throw broken("it is no ClinicalDocument of urn:hl7-org:v3");
    }
    this.#path.push(uri === hl7 ? local : `{${uri}}${local}`);
    this.#text = "";
    const depth = this.#path.length;
    if (depth === 2) this.#ofDocument(local, element);
    if (this.#path[1] === "recordTarget") this.#ofPatient(element);
    if (local === "section" && uri === hl7) {
      this.#inSection.push({ index: this.#sections.length, depth });
      this.#sections.push({ code: "", title: "" });
    } else if (acts.has(local) && uri === hl7 && this.#inSection.length > 0) this.#beginAct(element, depth);
    else this.#ofSectionOrAct(element, depth);
  }

  text(text: string): void {
    this.#text += text;
  }

  close(): void {
    const depth = this.#path.length;
    const [, second] = this.#path;
    const local = this.#path.pop();
    if (local === "title" && depth === 2) this.#title = oneLine(this.#text);
    const section = this.#inSection.at(-1);
    if (local === "title" && section?.depth === depth - 1) {
      this.#sections[section.index]!.title = oneLine(this.#text);
    }
    if (second === "recordTarget" && this.#patient !== undefined) {
      if (local === "given" && this.#patient.given === "") this.#patient.given = oneLine(this.#text);
      if (local === "family" && this.#patient.family === "") this.#patient.family = oneLine(this.#text);
    }
    const act = this.#inAct.at(-1);
    if (local === "value" && act?.depth === depth - 1 && act.act.value === "") {
      act.act.value = oneLine(this.#text);
    }
    if (section?.depth === depth) this.#inSection.pop();
    if (act?.depth === depth) this.#inAct.pop();
    this.#text = "";
  }

  finish(): ClinicalDocument {
    const root = this.#id?.attribute("root") ?? "";
    const code = this.#code?.attribute("code") ?? "";
    if (root === "") throw broken("it has no id");
    if (code === "") throw broken("it does not say which kind of document it is");
    if (this.#code!.attribute("codeSystem") !== loinc) throw broken("its kind is not coded in LOINC");
    if (this.#patient === undefined) throw broken("it is about no patient");
    return {
      root,
      extension: this.#id!.attribute("extension"),
      code,
      title: this.#title,
      effectiveTime: this.#effectiveTime,
      patient: this.#patient,
      sections: this.#sections,
      acts: this.#acts,
    };
  }

  #ofDocument(local: string, element: Element): void {
    if (local === "id") this.#id ??= element;
    else if (local === "code") this.#code ??= element;
    else if (local === "effectiveTime") this.#effectiveTime ||= element.attribute("value");
  }

  /** The first of several patients counts. */
  #ofPatient(element: Element): void {
    const { local } = element;
    const place = this.#path.slice(2).join("/");
    if (place === "patientRole/id" && this.#patient === undefined) {
      const [root, extension] = [element.attribute("root"), element.attribute("extension")];
      this.#patient = { root, extension, given: "", family: "", gender: "", birthTime: "" };
    }
    if (this.#patient === undefined) return;
    if (local === "administrativeGenderCode") this.#patient.gender ||= element.attribute("code");
    if (place === "patientRole/patient/birthTime") this.#patient.birthTime ||= element.attribute("value");
  }

  #beginAct(element: Element, depth: number): void {
    const act = {
      section: this.#inSection.at(-1)?.index ?? -1,
      kind: element.local,
      classCode: element.attribute("classCode"),
      moodCode: element.attribute("moodCode"),
      code: "",
      codeSystem: "",
      displayName: "",
      effectiveTime: "",
      value: "",
      unit: "",
    };
    this.#acts.push(act);
    this.#inAct.push({ act, depth });
  }

  #ofSectionOrAct(element: Element, depth: number): void {
    const { local } = element;
    const section = this.#inSection.at(-1);
    const inAct = this.#inAct.at(-1);
    if (local === "code" && section?.depth === depth - 1) {
      this.#sections[section.index]!.code ||= element.attribute("code");
    }
    if (inAct === undefined) return;
    const { act } = inAct;
    const place = this.#path.slice(inAct.depth).join("/");
    if (place === "code" || place === "consumable/manufacturedProduct/manufacturedMaterial/code") {
      act.code ||= element.attribute("code");
      act.codeSystem ||= element.attribute("codeSystem");
      act.displayName ||= element.attribute("displayName");
    } else if (place === "effectiveTime" || place === "effectiveTime/low") {
      act.effectiveTime ||= element.attribute("value");
    } else if (place === "value") {
      act.value ||= element.attribute("value") || element.attribute("code");
      act.unit ||= element.attribute("unit");
    }
  }
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim();
}

function broken(what: string): MillraceError {
  return new MillraceError("rule-broken", `the document is not valid: ${what}`);
}
