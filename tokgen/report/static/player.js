/** Plays one sound at a time. Switching to another sound keeps the exact position. */
class Player extends EventTarget {
  static FADE = 0.006; // seconds of fade, to avoid clicks
  static KEPT = 64; // maximum number of decoded sounds in memory

  sound = null; // id of the element with the audio
  playing = false;
  repeat = false;
  target = null; // sound that was requested last; it may still be decoding
  active = false; // true if the target is playing or will play
  #context = null;
  #buffers = new Map();
  #source = null;
  #gain = null;
  #duration = 0;
  #offset = 0; // position at which playback started or paused
  #startedAt = 0;
  #heard = 0;
  #request = 0;
  #pending = null; // requested position, until the sound starts

  /** Position in the sound, in seconds. */
  get position() {
    return this.#positionAt(this.#context?.currentTime);
  }

  #positionAt(now) {
    if (!this.playing) return this.#offset;
    const position = this.#offset + now - this.#startedAt;
    return this.repeat ? position % this.#duration : Math.min(position, this.#duration);
  }

  /** Seconds of audio played so far, over all sounds. */
  get heard() {
    const now = this.playing ? this.#context.currentTime - this.#startedAt : 0;
    return this.#heard + now;
  }

  /** Play a sound from `position`, or from the current position of the previous sound. */
  async play(sound, position = null) {
    const request = ++this.#request;
    Object.assign(this, { target: sound, active: true });
    this.#pending = position ?? this.#pending;
    this.#context ??= new AudioContext();
    if (this.#context.state === "suspended") this.#context.resume();
    let buffer;
    try {
      buffer = await this.load(sound);
    } catch {
      if (request === this.#request) this.pause();
      this.dispatchEvent(new CustomEvent("failed", { detail: sound }));
      return;
    }
    if (request !== this.#request) return;
    this.#start(sound, buffer);
  }

  pause() {
    this.select(this.target);
  }

  /** Select a sound without playing it. */
  select(sound, position = this.#pending ?? this.position) {
    this.#request += 1;
    this.#stop(position);
    Object.assign(this, { sound, target: sound, active: false });
    this.#pending = null;
    this.#changed();
  }

  /** Decode sounds in advance. Errors are reported when a sound is played. */
  prepare(sounds) {
    for (const sound of sounds) if (sound) this.load(sound).catch(() => {});
  }

  load(sound) {
    if (!this.#buffers.has(sound)) {
      this.#context ??= new AudioContext();
      const bytes = Uint8Array.from(atob(document.getElementById(sound).textContent), (c) =>
        c.charCodeAt(0),
      );
      this.#buffers.set(sound, this.#context.decodeAudioData(bytes.buffer));
      if (this.#buffers.size > Player.KEPT) {
        this.#buffers.delete(this.#buffers.keys().next().value);
      }
    }
    return this.#buffers.get(sound);
  }

  #start(sound, buffer) {
    const now = this.#context.currentTime; // the same time stops the old sound and starts the new one
    const position = this.#pending ?? this.#positionAt(now);
    const at = position < buffer.duration ? Math.max(0, position) : 0;
    this.#stop(at);
    const gain = new GainNode(this.#context, { gain: 0 });
    gain.gain.setValueAtTime(0, now);
    gain.gain.linearRampToValueAtTime(1, now + Player.FADE);
    gain.connect(this.#context.destination);
    const source = new AudioBufferSourceNode(this.#context, { buffer, loop: this.repeat });
    source.connect(gain);
    source.onended = () => this.#ended(source);
    source.start(now, at);
    Object.assign(this, { sound, playing: true });
    this.#pending = null;
    this.#source = source;
    this.#gain = gain;
    this.#duration = buffer.duration;
    this.#startedAt = now;
    this.#changed();
  }

  #stop(position) {
    if (this.playing) {
      const now = this.#context.currentTime;
      this.#heard += now - this.#startedAt;
      this.#gain.gain.cancelScheduledValues(now);
      this.#gain.gain.setTargetAtTime(0, now, Player.FADE / 3);
      this.#source.stop(now + 2 * Player.FADE);
      this.#source = null;
    }
    this.playing = false;
    this.#offset = position;
    this.#changed();
  }

  #ended(source) {
    if (source !== this.#source) return;
    if (this.target === this.sound) this.active = false;
    this.#stop(0);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Format seconds as "0:03.2". */
function clock(seconds) {
  const tenths = Math.floor(seconds * 10);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}

/** Call `draw` after every change, and before every repaint during playback. */
function follow(player, draw) {
  let scheduled = false;
  const step = () => {
    scheduled = false;
    draw();
    if (player.playing) schedule();
  };
  const schedule = () => {
    if (!scheduled) requestAnimationFrame(step);
    scheduled = true;
  };
  player.addEventListener("change", schedule);
}

/** Download text as a file. */
function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Quote a CSV field. Text that a spreadsheet would read as a formula gets an apostrophe. */
function csvField(value) {
  let text = String(value);
  if (typeof value !== "number" && /^[=+\-@\t\r\n＝＋－＠]/.test(text)) text = `'${text}`;
  return `"${text.replaceAll('"', '""')}"`;
}

function csv(rows) {
  return rows.map((row) => row.map(csvField).join(",") + "\r\n").join("");
}

/** Make a file name from a name: letters, digits, dots and dashes; the rest becomes "_". */
function fileName(name) {
  return name.replaceAll(/[^\p{L}\p{N}.-]+/gu, "_").slice(0, 60) || "run";
}
