// Making parts of the page. What is shown was written by anybody, so strings become text nodes and attributes, and
// nothing is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `attributes`: functions are listeners (`onclick`), `true` is an attribute without value, `null`,
 * `undefined` and `false` are none; `tabIndex`, `value`, `checked`, `disabled` and `hidden` are set as properties.
 */
export function el(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
export function svg(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

const PROPERTIES = new Set(["tabIndex", "value", "checked", "disabled", "hidden"]);

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), value);
    } else if (PROPERTIES.has(name) && element instanceof HTMLElement) {
      element[name] = value;
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that only looks at things. */
export function button(label, onclick, attributes) {
  return el("button", { type: "button", onclick, ...attributes }, label);
}

/** Copies a text and says so on the button. Without permission (no secure context) the text is shown to be copied by hand. */
export async function copy(text, from) {
  const said = from.textContent;
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "copied";
  } catch {
    const field = el("input", { class: "by-hand", value: text, readonly: true, "aria-label": "to be copied" });
    field.addEventListener("blur", () => field.remove());
    from.after(field);
    field.select();
    return;
  }
  setTimeout(() => {
    from.textContent = said;
  }, 1200);
}
