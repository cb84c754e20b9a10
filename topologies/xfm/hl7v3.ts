import { createHash } from "node:crypto";
import { MillraceError } from "millrace";
import { type Code, type Coding, codeOf, loinc } from "./code-systems.ts";
import { element, type Xml } from "./xml.ts";

interface Concept {
  readonly coding?: readonly Coding[];
  readonly text?: string;
}

interface Measured {
  readonly code?: Concept;
  readonly valueQuantity?: { readonly value?: number; readonly unit?: string; readonly code?: string };
  readonly valueCodeableConcept?: Concept;
  readonly valueString?: string;
}

/** What the schema has checked of a resource. */
export interface Resource extends Measured {
  readonly resourceType: string;
  readonly id?: string;
  readonly component?: readonly Measured[];
  readonly vaccineCode?: Concept;
  readonly medicationCodeableConcept?: Concept;
  readonly type?: Concept | readonly Concept[];
  readonly effectiveDateTime?: string;
  readonly onsetDateTime?: string;
  readonly occurrenceDateTime?: string;
  readonly authoredOn?: string;
  readonly performedDateTime?: string;
  readonly performedPeriod?: { readonly start?: string };
  readonly period?: { readonly start?: string };
  readonly name?: string | readonly { readonly family?: string; readonly given?: readonly string[] }[];
  readonly gender?: "male" | "female" | "other" | "unknown";
  readonly birthDate?: string;
}

export interface Bundle {
  readonly id?: string;
  readonly entry: readonly { readonly resource?: Resource }[];
}

/** A kind of resource that has a place in a clinical document. Others (claims, organizations) have none, and stay out. */
interface Kind {
  readonly section: { readonly code: string; readonly title: string };
  readonly element: "observation" | "encounter" | "procedure" | "substanceAdministration" | "act";
  readonly classCode: string;
  readonly moodCode?: string;
  code(resource: Resource): Concept | undefined;
  time(resource: Resource): string | undefined;
}

const kinds: Readonly<Record<string, Kind>> = {
  Condition: {
    section: { code: "11450-4", title: "Problem list" },
    element: "observation",
    classCode: "OBS",
    code: ({ code }) => code,
    time: ({ onsetDateTime }) => onsetDateTime,
  },
  Observation: {
    section: { code: "30954-2", title: "Results" },
    element: "observation",
    classCode: "OBS",
    code: ({ code }) => code,
    time: ({ effectiveDateTime }) => effectiveDateTime,
  },
  DiagnosticReport: {
    section: { code: "30954-2", title: "Results" },
    element: "act",
    classCode: "ACT",
    code: ({ code }) => code,
    time: ({ effectiveDateTime }) => effectiveDateTime,
  },
  Immunization: {
    section: { code: "11369-6", title: "Immunizations" },
    element: "substanceAdministration",
    classCode: "SBADM",
    code: ({ vaccineCode }) => vaccineCode,
    time: ({ occurrenceDateTime }) => occurrenceDateTime,
  },
  MedicationRequest: {
    section: { code: "10160-0", title: "Medications" },
    element: "substanceAdministration",
    classCode: "SBADM",
    moodCode: "INT",
    code: ({ medicationCodeableConcept }) => medicationCodeableConcept,
    time: ({ authoredOn }) => authoredOn,
  },
  Procedure: {
    section: { code: "47519-4", title: "Procedures" },
    element: "procedure",
    classCode: "PROC",
    code: ({ code }) => code,
    time: ({ performedDateTime, performedPeriod }) => performedDateTime ?? performedPeriod?.start,
  },
  Encounter: {
    section: { code: "46240-8", title: "Encounters" },
    element: "encounter",
    classCode: "ENC",
    code: ({ type }) => (Array.isArray(type) ? type[0] : (type as Concept | undefined)),
    time: ({ period }) => period?.start,
  },
};

/**
 * The clinical document that says in HL7v3 what a FHIR bundle says of one patient. The same bundle always gives the
 * same bytes, so that one which comes twice is known by its digest further on.
 *
 * Throws a business error for a bundle without exactly one patient, and for codes of unknown code systems.
 */
export function toHl7v3(bundle: Bundle): string {
  const resources = bundle.entry.flatMap(({ resource }) => resource ?? []);
  const patients = resources.filter(({ resourceType }) => resourceType === "Patient");
  const [patient] = patients;
  if (patient === undefined || patients.length > 1) {
    throw new MillraceError("rule-broken", `the bundle is about ${patients.length} patients, not about one`);
  }
  const sections = new Map<string, { readonly title: string; readonly entries: Xml[] }>();
  const times: string[] = [];
  for (const [index, resource] of resources.entries()) {
    const kind = Object.hasOwn(kinds, resource.resourceType) ? kinds[resource.resourceType]! : undefined;
    if (kind === undefined) continue;
    const { code, title } = kind.section;
    let section = sections.get(code);
    if (section === undefined) {
      section = { title, entries: [] };
      sections.set(code, section);
    }
    const time = timestamp(kind.time(resource));
    if (time !== undefined) times.push(time);
    section.entries.push(entryOf(kind, resource, time, `entry ${index} (${resource.resourceType})`));
  }
  const document = element(
    "ClinicalDocument",
    { xmlns: "urn:hl7-org:v3", "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance" },
    element("typeId", { root: "2.16.840.1.113883.1.3", extension: "POCD_HD000040" }),
    element("id", { root: bundle.id ?? uuidOf(JSON.stringify(bundle)) }),
    element("code", { code: "34133-9", codeSystem: loinc, displayName: "Summarization of Episode Note" }),
    element("title", {}, "Summary of a FHIR bundle"),
    timeElement(times.sort().at(-1)),
    element("recordTarget", {}, element("patientRole", {}, ...patientOf(patient))),
    element(
      "component",
      {},
      element(
        "structuredBody",
        {},
        [...sections].map(([code, { title, entries }]) =>
          element(
            "component",
            {},
            element(
              "section",
              {},
              element("code", { code, codeSystem: loinc }),
              element("title", {}, title),
              entries,
            ),
          ),
        ),
      ),
    ),
  );
  return `<?xml version="1.0" encoding="UTF-8"?>\n${document.text}`;
}

const genders = { male: "M", female: "F", other: "UN", unknown: "UN" } as const;

function patientOf({ id, name, gender, birthDate }: Resource): Xml[] {
  const [first] = typeof name === "string" || name === undefined ? [] : name;
  return [
    id === undefined
      ? element("id", { nullFlavor: "UNK" })
      : element("id", { root: "2.16.840.1.113883.4", extension: id }),
    element(
      "patient",
      {},
      element(
        "name",
        {},
        (first?.given ?? []).map((given) => element("given", {}, given)),
        first?.family === undefined ? undefined : element("family", {}, first.family),
      ),
      gender === undefined
        ? undefined
        : element("administrativeGenderCode", { code: genders[gender], codeSystem: "2.16.840.1.113883.5.1" }),
      birthDate === undefined ? undefined : element("birthTime", { value: timestamp(birthDate) }),
    ),
  ];
}

function entryOf(kind: Kind, resource: Resource, time: string | undefined, where: string): Xml {
  const { element: name, classCode, moodCode = "EVN" } = kind;
  const code = codeElement("code", kind.code(resource), where);
  const isSubstance = name === "substanceAdministration";
  return element(
    "entry",
    {},
    element(
      name,
      { classCode, moodCode },
      resource.id === undefined
        ? undefined
        : element("id", { root: "2.16.840.1.113883.4", extension: resource.id }),
      isSubstance ? undefined : code,
      timeElement(time),
      valueElement(resource, where),
      isSubstance
        ? element(
            "consumable",
            {},
            element("manufacturedProduct", {}, element("manufacturedMaterial", {}, code)),
          )
        : undefined,
      (resource.component ?? []).map((part) =>
        element(
          "entryRelationship",
          { typeCode: "COMP" },
          element(
            "observation",
            { classCode: "OBS", moodCode: "EVN" },
            codeElement("code", part.code, where),
            valueElement(part, where),
          ),
        ),
      ),
    ),
  );
}

function valueElement(
  { valueQuantity, valueCodeableConcept, valueString }: Measured,
  where: string,
): Xml | undefined {
  if (valueQuantity !== undefined) {
    const { value, unit, code } = valueQuantity;
    return element("value", { "xsi:type": "PQ", value: value?.toString(), unit: code ?? unit });
  }
  if (valueCodeableConcept !== undefined) {
    return codeElement("value", valueCodeableConcept, where, { "xsi:type": "CD" });
  }
  return valueString === undefined ? undefined : element("value", { "xsi:type": "ST" }, valueString);
}

function codeElement(
  name: string,
  concept: Concept | undefined,
  where: string,
  attributes: Readonly<Record<string, string>> = {},
): Xml {
  const code: Code | undefined = codeOf(concept?.coding ?? [], where);
  if (code !== undefined) return element(name, { ...attributes, ...code });
  const { text } = concept ?? {};
  const said = text === undefined ? undefined : element("originalText", {}, text);
  return element(name, { ...attributes, nullFlavor: "UNK" }, said);
}

function timeElement(time: string | undefined): Xml {
  return element("effectiveTime", time === undefined ? { nullFlavor: "UNK" } : { value: time });
}

/** HL7v3's form of FHIR's "2011-05-05T12:00:00.000-04:00": "20110505120000-0400". */
function timestamp(time: string | undefined): string | undefined {
  if (time === undefined) return undefined;
  const match =
    /^(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?(Z|[+-]\d{2}:\d{2}))?)?)?$/.exec(
      time,
    );
  if (match === null) throw new MillraceError("rule-broken", "a time is none of FHIR's forms");
  const [, ...parts] = match;
  const zone = parts.pop();
  return `${parts.join("")}${zone === "Z" ? "+0000" : (zone?.replace(":", "") ?? "")}`;
}

/** A UUID made from the content (RFC 9562, version 8): the same content, the same id. */
function uuidOf(content: string): string {
  const bytes = createHash("sha256").update(content).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
