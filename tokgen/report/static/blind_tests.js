function option(name, value, type = "option") {
  const element = document.createElement(type);
  element.value = value;
  element.textContent = name;
  return element;
}

/** Probability of at least `right` correct answers in n trials by guessing. */
function binomialTail(right, n) {
  let term = 0.5 ** n; // probability of k correct answers
  let sum = 0;
  for (let k = 0; k <= n; k += 1) {
    if (k >= right) sum += term;
    term *= (n - k) / (k + 1);
  }
  return Math.min(1, sum);
}

class AbxTest extends BlindTest {
  name = "abx";
  unit = "Trial";
  header = [
    ...["rater", "trial", "utterance", "A", "B", "X", "answer", "correct"],
    ...["seconds_listened", "time"],
  ];

  offer() {
    const names = this.listening.columns.map(({ name }) => name);
    for (const [field, first] of [["a", 0], ["b", names.length > 1 ? 1 : 0]]) {
      const select = this.setup.elements[field];
      select.replaceChildren(...names.map((name, i) => option(name, i)));
      select.value = first;
    }
  }

  prepare() {
    const { a, b, repeats } = this.setup.elements;
    this.a = Number(a.value);
    this.b = Number(b.value);
    if (this.a === this.b) return "Choose two different columns.";
    const rows = this.listening.clips
      .map((clip, row) => (clip.sounds[this.a] && clip.sounds[this.b] ? row : -1))
      .filter((row) => row >= 0);
    if (!rows.length) return "No utterance has both columns.";
    const all = Array.from({ length: Number(repeats.value) }, () => rows).flat();
    this.trials = shuffled(all).map((row) => ({ row, x: chance(2) ? "A" : "B" }));
    return "";
  }

  begin(trial, clip) {
    this.warn("");
    const [a, b] = [clip.sounds[this.a], clip.sounds[this.b]];
    return { a, x: trial.x === "A" ? a : b, b };
  }

  clicked(button) {
    const { answer } = button.dataset;
    if (!answer) return;
    if (this.unplayed(["x"]).length) {
      this.warn("Play X first.");
      return;
    }
    if (this.unplayed(["a", "b"]).length === 2) {
      this.warn("Play A or B too, to compare X with.");
      return;
    }
    const { row, x } = this.trials[this.index];
    const { columns, clips } = this.listening;
    const named = { A: columns[this.a].name, B: columns[this.b].name };
    this.rows.push([
      this.rater,
      this.index + 1,
      clips[row].id,
      named.A,
      named.B,
      x,
      answer,
      Number(answer === x),
      this.heard,
      new Date().toISOString(),
    ]);
    this.next();
  }

  report(outcome) {
    const right = this.rows.filter((row) => row[7]).length;
    const n = this.rows.length;
    const p = binomialTail(right, n);
    outcome.textContent = n
      ? `${right} of ${n} correct; one-sided binomial p = ${p < 0.001 ? p.toExponential(1) : p.toFixed(3)}.`
      : "No answers.";
  }
}

class MushraTest extends BlindTest {
  name = "mushra";
  unit = "Utterance";
  header = ["rater", "utterance", "condition", "score", "position", "time"];
  static labels = ["Bad", "Poor", "Fair", "Good", "Excellent"];

  offer() {
    this.reference = this.listening.columns.findIndex(({ reference }) => reference);
    const choices = this.listening.columns.flatMap(({ name }, i) =>
      i === this.reference ? [] : [this.#choice(name, i)],
    );
    this.setup.querySelector(".columns").replaceChildren(...choices);
  }

  #choice(name, i) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), {
      type: "checkbox",
      value: i,
      checked: true,
    });
    label.append(box, name);
    return label;
  }

  prepare() {
    if (this.reference < 0) return "This run has no original to compare with.";
    const boxes = [...this.setup.querySelectorAll(".columns input:checked")];
    this.columns = boxes.map((box) => Number(box.value));
    if (!this.columns.length) return "Choose at least one column.";
    const rows = this.listening.clips.flatMap((clip, row) =>
      clip.sounds[this.reference] ? [row] : [],
    );
    if (!rows.length) return "No utterance has an original.";
    this.trials = shuffled(rows).map((row) => ({ row }));
    return "";
  }

  /** Show the hidden reference, the low anchor and the columns in random order. */
  begin(trial, clip) {
    const reference = clip.sounds[this.reference];
    const conditions = [
      { name: "hidden reference", sound: reference },
      { name: "low anchor (3.5 kHz)", sound: clip.anchor },
      ...this.columns.map((i) => ({
        name: this.listening.columns[i].name,
        sound: clip.sounds[i],
      })),
    ];
    this.stimuli = shuffled(conditions.filter(({ sound }) => sound));
    this.dialog
      .querySelector(".stimuli")
      .replaceChildren(...this.stimuli.map((stimulus, i) => this.#stimulus(stimulus, i + 1)));
    const last = this.index + 1 === this.trials.length;
    this.dialog.querySelector("[data-do=next]").textContent = last ? "Finish" : "Next utterance";
    this.warn("");
    const sounds = this.stimuli.map(({ sound }, i) => [String(i + 1), sound]);
    return Object.fromEntries([["0", reference], ...sounds]);
  }

  #stimulus(stimulus, position) {
    const item = document.createElement("li");
    const button = option(`Sound ${position}`, "", "button");
    Object.assign(button, { type: "button" });
    button.dataset.sound = position;
    button.setAttribute("aria-pressed", "false");
    const slider = Object.assign(document.createElement("input"), {
      type: "range",
      min: 0,
      max: 100,
      step: 1,
      value: 0,
    });
    slider.setAttribute("aria-label", `Score of sound ${position}`);
    slider.setAttribute("aria-valuetext", "not scored");
    const output = document.createElement("output");
    output.textContent = "not scored";
    slider.addEventListener("input", () => {
      stimulus.score = Number(slider.value);
      const label = MushraTest.labels[Math.min(4, Math.floor(stimulus.score / 20))];
      output.textContent = `${stimulus.score} ${label}`;
      slider.setAttribute("aria-valuetext", output.textContent);
    });
    item.append(button, slider, output);
    return item;
  }

  clicked(button) {
    if (button.dataset.do !== "next") return;
    const open = this.stimuli.flatMap(({ score }, i) => (score === undefined ? [i + 1] : []));
    if (open.length) {
      this.warn(`Not scored yet: sound ${open.join(", ")}.`);
      return;
    }
    const unplayed = this.unplayed(this.stimuli.map((_, i) => String(i + 1)));
    if (unplayed.length) {
      this.warn(`Not played yet: sound ${unplayed.join(", ")}.`);
      return;
    }
    const { id } = this.listening.clips[this.trials[this.index].row];
    const time = new Date().toISOString();
    this.stimuli.forEach(({ name, score }, i) => {
      this.rows.push([this.rater, id, name, score, i + 1, time]);
    });
    this.next();
  }

  report(outcome) {
    const found = new Map();
    for (const [, , condition, score] of this.rows) {
      found.set(condition, [...(found.get(condition) ?? []), score]);
    }
    const rows = [...found].map(([condition, scores]) => {
      const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
      const row = document.createElement("tr");
      for (const text of [condition, mean.toFixed(1), scores.length]) {
        row.append(Object.assign(document.createElement("td"), { textContent: text }));
      }
      return row;
    });
    this.resultPart.querySelector("tbody").replaceChildren(...rows);
    const n = new Set(this.rows.map(([, utterance]) => utterance)).size;
    outcome.textContent = n ? `${n} of ${this.trials.length} utterances scored.` : "No scores.";
  }
}

const tests = {
  abx: new AbxTest(document.getElementById("abx")),
  mushra: new MushraTest(document.getElementById("mushra")),
};

for (const button of document.querySelectorAll("button[data-test]")) {
  button.addEventListener("click", () => {
    tests[button.dataset.test].open(report.listenings[Number(button.dataset.listening)]);
  });
}
