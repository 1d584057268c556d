package answer

import "encoding/binary"

// memo remembers a text that was found to be JSON, and which of its bytes may differ in another that then is JSON too and
// has its values in the same places: the answers of one server differ in little more than the names and
// numbers in them. It is a short cut of Paths.Read that takes a third of its time, and never another result.
type memo struct {
	text   []byte
	may    []byte // 0xff where the byte may be another: within a string or a number
	number []byte // isDigit where it must be one, isLead where it must be one but 0
	at     []value
	missed int // texts of this length that did not match since it was learnt
}

const (
	isDigit = 0x80
	isLead  = 0x81
)

// Memos of one Values: by the text's length, since most that differ in length do so by a digit or two.
const (
	memos     = 8
	memoBytes = 4 << 10 // longer texts are not remembered
	relearn   = 64      // texts that do not match before another is remembered
)

// matches reports whether a text differs from m's in nothing that matters.
func (m *memo) matches(text []byte) bool {
	n := len(text)
	if n != len(m.text) || n < 8 {
		return false
	}
	old, may := m.text[:n], m.may[:n]
	for i := 0; ; i += 8 {
		if i > n-8 {
			if i >= n {
				return true
			}
			i = n - 8 // the last eight, some of them for the second time
		}
		w := binary.LittleEndian.Uint64(text[i:])
		d := w ^ binary.LittleEndian.Uint64(old[i:])
		if d == 0 {
			continue
		}
		if d&^binary.LittleEndian.Uint64(may[i:]) != 0 {
			return false
		}
		number := binary.LittleEndian.Uint64(m.number[i:])
		if special(w)&^number&binary.LittleEndian.Uint64(may[i:]) != 0 {
			return false
		}
		if number != 0 {
			// A digit is below 10 once its 0x30 is taken off: 0x76 more does not reach the high bit then.
			x := w ^ 0x30*ones
			digits, zeros := x&^highs+0x76*ones|x, (x-ones)&^x
			if (digits|zeros&(number<<7))&highs&number != 0 {
				return false
			}
		}
	}
}

// learn remembers a text that is JSON, and its values.
func (m *memo) learn(text []byte, at []value) {
	m.missed = 0
	m.text = append(m.text[:0], text...)
	m.at = append(m.at[:0], at...)
	m.may = append(m.may[:0], text...)
	clear(m.may)
	m.number = append(m.number[:0], m.may...)
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			end, escaped := stringEnd(text, i+1)
			next := end + 1
			for next < len(text) && text[next] <= ' ' {
				next++
			}
			// A key says what its value is, and an escape how long the characters are: those stay.
			if key := next < len(text) && text[next] == ':'; !key && !escaped {
				for j := i + 1; j < end; j++ {
					m.may[j] = 0xff
				}
			}
			i = end + 1
		case '0' <= c && c <= '9':
			end, mark := digitsEnd(text, i), byte(isDigit)
			if end > i+1 && (i == 0 || text[i-1] != '.') { // 10 must not become 00
				mark = isLead
			}
			for ; i < end; i++ {
				m.may[i], m.number[i] = 0xff, mark
				mark = isDigit
			}
		default:
			i++
		}
	}
}
