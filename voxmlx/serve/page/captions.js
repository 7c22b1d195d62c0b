// What has been said: words with their times, and how the page shows them.
//
// A block is a paragraph: an utterance, or a note about what was not heard. The last
// utterance is open until its end is known. Its words are final; the text after them,
// the tail, may still become other words and is hidden from screen readers. The draft
// behind both may change at any time. It is drawn by a style and is no text of the page,
// so nobody copies it.

const MAX_CHARS = 400_000; // some ten hours of speech; older blocks go
const MAX_OPEN_MS = 30_000; // an utterance without a pause ends at a word

export class Captions {
  // `keep` gets each block that is new or has changed, `drop` the id of one that went.
  constructor(element, { keep, drop, change }) {
    this.element = element;
    this.keep = keep;
    this.drop = drop;
    this.change = change;
    this.blocks = [];
    this.open = null;
    this.nChars = 0;
    this.nextId = 0;
    this.drafted = "";
  }

  get utterances() {
    return this.blocks.map(({ words }) => words).filter((words) => words.length > 0);
  }

  get endMs() {
    return Math.max(0, ...this.blocks.slice(-50).map(({ endMs }) => endMs));
  }

  delta(text) {
    this.#follow(() => {
      const block = this.#opened();
      block.tail += text;
      // A word that is confirmed stays where it stands; the next draft comes a moment later.
      if (this.drafted.startsWith(text)) this.drafted = this.drafted.slice(text.length);
      this.#draw(block);
    });
  }

  // What may follow all text so far, as a whole; "" for nothing.
  draft(text) {
    this.drafted = text;
    this.#follow(() => {
      const { open } = this;
      if (text !== "") this.#draw(this.#opened());
      else if (open !== null && open.words.length === 0 && open.tail === "") this.withdraw();
      else if (open !== null) this.#draw(open);
    });
  }

  // Returns the time at which the utterance was ended because it is long, else null.
  word(word) {
    let splitMs = null;
    this.#follow(() => {
      const block = this.#opened();
      this.#add(block, word);
      block.tail = block.tail.slice((word.lead + word.text).length);
      this.#draw(block);
      if (word.end_ms - block.words[0].start_ms > MAX_OPEN_MS) {
        const { tail } = block;
        block.tail = "";
        splitMs = word.end_ms;
        const { drafted } = this;
        this.end();
        if (tail !== "") this.delta(tail);
        this.draft(drafted);
      }
    });
    return splitMs;
  }

  end() {
    const block = this.open;
    this.open = null;
    this.drafted = "";
    if (block === null) return;
    // Text that is no word yet has no time of its own.
    const text = block.tail.trim();
    if (text !== "") {
      const ms = block.endMs;
      this.#add(block, { text, lead: " ", start_ms: ms, end_ms: ms });
    }
    block.tail = "";
    this.#draw(block);
    if (block.words.length > 0) this.keep(block);
    else this.#remove(block);
    this.change();
  }

  // The open utterance is heard again.
  withdraw() {
    if (this.open !== null) this.#remove(this.open);
    this.open = null;
    this.drafted = "";
    this.change();
  }

  note(text) {
    this.end();
    this.#follow(() => this.keep(this.#append({ words: [], note: text })));
  }

  // A whole utterance, as of a file.
  utterance(words) {
    this.end();
    for (const word of words) this.#add(this.#opened(), word);
    if (this.open !== null) this.#draw(this.open);
    this.end();
  }

  restore(blocks) {
    for (const { id, words, note } of blocks) {
      const block = this.#append({ words: [], note }, id);
      for (const word of words) this.#add(block, word);
      this.#draw(block);
    }
    this.element.scrollTop = this.element.scrollHeight;
    this.change();
  }

  clear() {
    this.blocks = [];
    this.open = null;
    this.nChars = 0;
    this.drafted = "";
    this.element.replaceChildren();
    this.change();
  }

  #opened() {
    this.open ??= this.#append({ words: [] });
    return this.open;
  }

  #append({ words, note }, id = null) {
    const paragraph = document.createElement("p");
    paragraph.dir = "auto";
    const said = paragraph.appendChild(document.createElement("span"));
    const tail = paragraph.appendChild(document.createElement("span"));
    tail.className = "tail";
    tail.ariaHidden = "true";
    const draft = paragraph.appendChild(document.createElement("span"));
    draft.className = "draft";
    draft.ariaHidden = "true";
    const block = { id: id ?? this.#newId(), words, note, tail: "", endMs: 0 };
    Object.assign(block, { paragraph, nShown: 0 });
    if (note !== undefined) {
      paragraph.className = "note";
      paragraph.lang = "en";
      said.append(note);
    }
    this.blocks.push(block);
    this.element.append(paragraph);
    return block;
  }

  // Sorted by the time of the page's first block, so that two pages do not mix.
  #newId() {
    this.run ??= Date.now().toString(36).padStart(9, "0");
    return `${this.run}.${String(this.nextId++).padStart(7, "0")}`;
  }

  #add(block, word) {
    block.words.push(word);
    block.endMs = Math.max(block.endMs, word.end_ms);
    this.nChars += word.lead.length + word.text.length;
    while (this.nChars > MAX_CHARS && this.blocks.length > 1) {
      this.#remove(this.blocks[0]);
    }
  }

  #draw(block) {
    const [said, tail, draft] = block.paragraph.children;
    const fresh = block.words.slice(block.nShown).map(({ lead, text }) => lead + text);
    const text = block.nShown === 0 ? fresh.join("").trimStart() : fresh.join("");
    if (text !== "") said.append(text);
    block.nShown = block.words.length;
    tail.textContent = block.nShown === 0 ? block.tail.trimStart() : block.tail;
    const drafted = block === this.open ? this.drafted : "";
    const isFirst = block.nShown === 0 && block.tail.trim() === "";
    draft.dataset.text = isFirst ? drafted.trimStart() : drafted;
    if (fresh.length > 0 && block === this.open) this.keep(block);
  }

  #remove(block) {
    block.paragraph.remove();
    this.blocks.splice(this.blocks.indexOf(block), 1);
    for (const { lead, text } of block.words) this.nChars -= lead.length + text.length;
    this.drop(block.id);
  }

  // The latest line stays in sight, unless somebody reads further up.
  #follow(change) {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < 60;
    change();
    if (isAtEnd) this.element.scrollTop = this.element.scrollHeight;
    this.change();
  }
}
