// Command bbolt lets the tests drive the reference implementation: Go's bbolt on the same file.
//
//	bbolt create FILE PAGESIZE FLAGS     make an empty file; FLAGS from n (NoFreelistSync), g (NoGrowSync), m (map freelist)
//	bbolt check FILE                     open and run Tx.Check
//	bbolt dump FILE                      every key as a line of JSON: [path..., key] and the value's hash and length
//	bbolt apply FILE FLAGS               apply transactions read from stdin, one operation in JSON per line
//	bbolt random FILE FLAGS SEED TXNS    random transactions in buckets of its own
//	bbolt copy FILE TARGET               make a hot copy (Tx.CopyFile)
//	bbolt hold FILE                      hold the lock until stdin ends
//	bbolt lock FILE MILLISECONDS         try to open with that timeout
//	bbolt live FILE MILLISECONDS         commit continuously, keeping an invariant across keys
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func open(file, flags string, pageSize int, timeout time.Duration) (*bolt.DB, error) {
	options := &bolt.Options{
		Timeout:        timeout,
		PageSize:       pageSize,
		NoFreelistSync: strings.Contains(flags, "n"),
		NoGrowSync:     strings.Contains(flags, "g"),
	}
	if strings.Contains(flags, "m") {
		options.FreelistType = bolt.FreelistMapType
	}
	return bolt.Open(file, 0600, options)
}

func mustOpen(file, flags string) *bolt.DB {
	db, err := open(file, flags, 0, 10*time.Second)
	fail(err)
	return db
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	fail(err)
	return n
}

func check(db *bolt.DB) {
	problems := 0
	fail(db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			fmt.Fprintln(os.Stderr, err)
			problems++
		}
		return nil
	}))
	if problems > 0 {
		os.Exit(1)
	}
}

type line struct {
	Path     []string `json:"path"`
	Bucket   bool     `json:"bucket"`
	Sequence uint64   `json:"sequence"`
	Sha256   string   `json:"sha256"`
	Length   int      `json:"length"`
}

func dump(out *json.Encoder, bucket *bolt.Bucket, path []string) error {
	return bucket.ForEach(func(key, value []byte) error {
		here := append(append([]string{}, path...), base64.StdEncoding.EncodeToString(key))
		if value == nil {
			inner := bucket.Bucket(key)
			if err := out.Encode(line{Path: here, Bucket: true, Sequence: inner.Sequence()}); err != nil {
				return err
			}
			return dump(out, inner, here)
		}
		sum := sha256.Sum256(value)
		return out.Encode(line{Path: here, Sha256: hex.EncodeToString(sum[:]), Length: len(value)})
	})
}

func dumpAll(db *bolt.DB) {
	buffer := bufio.NewWriter(os.Stdout)
	out := json.NewEncoder(buffer)
	fail(db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			here := []string{base64.StdEncoding.EncodeToString(name)}
			if err := out.Encode(line{Path: here, Bucket: true, Sequence: bucket.Sequence()}); err != nil {
				return err
			}
			return dump(out, bucket, here)
		})
	}))
	fail(buffer.Flush())
}

// operation is one step of a transaction; Commit ends it.
type operation struct {
	Op    string   `json:"op"`
	Path  [][]byte `json:"path"`
	Key   []byte   `json:"key"`
	Value []byte   `json:"value"`
}

func step(tx *bolt.Tx, op operation) error {
	var bucket *bolt.Bucket
	for i, name := range op.Path {
		var err error
		if i == 0 && op.Op == "create" {
			bucket, err = tx.CreateBucketIfNotExists(name)
		} else if i == 0 {
			bucket = tx.Bucket(name)
		} else if op.Op == "create" {
			bucket, err = bucket.CreateBucketIfNotExists(name)
		} else {
			bucket = bucket.Bucket(name)
		}
		if err != nil {
			return err
		}
		if bucket == nil {
			return fmt.Errorf("no bucket %q", op.Path)
		}
	}
	switch op.Op {
	case "create":
		return nil
	case "sequence":
		_, err := bucket.NextSequence()
		return err
	case "put":
		value := op.Value
		if value == nil {
			value = []byte{}
		}
		return bucket.Put(op.Key, value)
	case "delete":
		return bucket.Delete(op.Key)
	case "drop":
		var err error
		if bucket == nil {
			err = tx.DeleteBucket(op.Key)
		} else {
			err = bucket.DeleteBucket(op.Key)
		}
		if err == bolt.ErrBucketNotFound {
			return nil
		}
		return err
	}
	return fmt.Errorf("unknown operation %q", op.Op)
}

func apply(db *bolt.DB) {
	in := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<20))
	tx, err := db.Begin(true)
	fail(err)
	for {
		var op operation
		if err := in.Decode(&op); err == io.EOF {
			break
		} else {
			fail(err)
		}
		if op.Op != "commit" {
			fail(step(tx, op))
			continue
		}
		fail(tx.Commit())
		tx, err = db.Begin(true)
		fail(err)
	}
	fail(tx.Rollback())
}

func random(db *bolt.DB, seed int64, transactions int) {
	rng := rand.New(rand.NewSource(seed))
	for t := 0; t < transactions; t++ {
		fail(db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte(fmt.Sprintf("go-%d", rng.Intn(3))))
			if err != nil {
				return err
			}
			if rng.Intn(3) == 0 {
				if bucket, err = bucket.CreateBucketIfNotExists([]byte("inner")); err != nil {
					return err
				}
			}
			for i := rng.Intn(60); i >= 0; i-- {
				key := []byte(fmt.Sprintf("%05d", rng.Intn(400)))
				if rng.Intn(3) == 0 {
					err = bucket.Delete(key)
				} else {
					value := make([]byte, rng.Intn(1+rng.Intn(1+rng.Intn(9000))))
					rng.Read(value)
					err = bucket.Put(key, value)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

// live moves amounts between the keys of a bucket, so that they always add up to the same sum, and writes the number
// of the transaction into a second bucket and into every tenth key of the first.
func live(db *bolt.DB, length time.Duration) {
	const keys = 400
	end := time.Now().Add(length)
	rng := rand.New(rand.NewSource(1))
	count := 0
	for ; time.Now().Before(end); count++ {
		fail(db.Update(func(tx *bolt.Tx) error {
			accounts, err := tx.CreateBucketIfNotExists([]byte("accounts"))
			if err != nil {
				return err
			}
			counter, err := tx.CreateBucketIfNotExists([]byte("counter"))
			if err != nil {
				return err
			}
			put := func(n, amount int) error {
				padding := strings.Repeat("p", rng.Intn(600))
				return accounts.Put([]byte(fmt.Sprintf("%04d", n)), []byte(fmt.Sprintf("%d %s", amount, padding)))
			}
			if count == 0 {
				for n := 0; n < keys; n++ {
					if err := put(n, 100); err != nil {
						return err
					}
				}
			}
			amount := func(n int) int {
				return number(strings.Split(string(accounts.Get([]byte(fmt.Sprintf("%04d", n)))), " ")[0])
			}
			for i := 0; i < 5; i++ {
				from, to, by := rng.Intn(keys), rng.Intn(keys), rng.Intn(50)
				if err := put(from, amount(from)-by); err != nil {
					return err
				}
				if err := put(to, amount(to)+by); err != nil {
					return err
				}
			}
			return counter.Put([]byte("transactions"), []byte(strconv.Itoa(count+1)))
		}))
	}
	fmt.Println(count)
}

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: bbolt COMMAND FILE ..."))
	}
	file, rest := os.Args[2], os.Args[3:]
	switch os.Args[1] {
	case "create":
		db, err := open(file, rest[1], number(rest[0]), time.Second)
		fail(err)
		fail(db.Close())
	case "check":
		db := mustOpen(file, "")
		check(db)
		fail(db.Close())
	case "dump":
		db := mustOpen(file, "")
		dumpAll(db)
		fail(db.Close())
	case "apply":
		db := mustOpen(file, rest[0])
		apply(db)
		check(db)
		fail(db.Close())
	case "random":
		db := mustOpen(file, rest[0])
		random(db, int64(number(rest[1])), number(rest[2]))
		check(db)
		fail(db.Close())
	case "copy":
		db := mustOpen(file, "")
		fail(db.View(func(tx *bolt.Tx) error { return tx.CopyFile(rest[0], 0600) }))
		fail(db.Close())
	case "hold":
		db := mustOpen(file, "")
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin)
		fail(db.Close())
	case "lock":
		db, err := open(file, "", 0, time.Duration(number(rest[0]))*time.Millisecond)
		fail(err)
		fail(db.Close())
	case "live":
		db := mustOpen(file, "")
		live(db, time.Duration(number(rest[0]))*time.Millisecond)
		check(db)
		fail(db.Close())
	default:
		fail(fmt.Errorf("unknown command %s", os.Args[1]))
	}
}
